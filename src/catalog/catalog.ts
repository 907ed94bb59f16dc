import { Kysely, Migrator, type SqliteDialect, type Transaction } from 'kysely';
import { MIGRATIONS } from './migrations.ts';
import { nodeSqliteDialect } from './node-sqlite.ts';
import type { CatalogSchema } from './schema.ts';

/** The metadata: what exists, and in which state. A transaction can be used wherever the catalog can. */
export type Catalog = Kysely<CatalogSchema>;
export type CatalogTransaction = Transaction<CatalogSchema>;

/** Opens the catalog and brings its schema up to date. @throws when it is none, or from a newer version, with what to do */
export async function openCatalog(path: string): Promise<Catalog> {
  const catalog = new Kysely<CatalogSchema>({ dialect: dialectOf(path) });
  const migrator = new Migrator({ db: catalog, provider: { getMigrations: async () => MIGRATIONS } });
  const { error } = await migrator.migrateToLatest();
  if (error === undefined) return catalog;
  const { message } = error as Error;
  // What Kysely calls corrupted: steps were taken that this version does not know.
  const [, unknown] = /previously executed migration (\S+) is missing/.exec(message) ?? [];
  if (unknown === undefined) throw new Error(`the catalog ${path} cannot be brought up to date: ${message}`);
  throw new Error(
    `the catalog ${path} is from a newer version of cleancut, which has taken step ${unknown}: run that one`,
  );
}

function dialectOf(path: string): SqliteDialect {
  try {
    return nodeSqliteDialect(path);
  } catch (error) {
    const { message } = error as Error;
    const isDamaged = /not a database|malformed/.test(message);
    const advice = isDamaged
      ? "Put it back from a copy; or move it away (with -wal and -shm) and run 'cleancut rebuild'"
      : 'See to the disk: is it full, or does it fail?';
    throw new Error(`the catalog ${path} cannot be opened: ${message}. ${advice}`);
  }
}

/** Whether it is the catalog that failed: its disk is full or broken. What was to be written down has not been. */
export function isCatalogError(error: unknown): error is Error {
  return error instanceof Error && (error as NodeJS.ErrnoException).code === 'ERR_SQLITE_ERROR';
}
