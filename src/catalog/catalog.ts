import { Kysely, Migrator, type Transaction } from 'kysely';
import { MIGRATIONS } from './migrations.ts';
import { nodeSqliteDialect } from './node-sqlite.ts';
import type { CatalogSchema } from './schema.ts';

/** The metadata: what exists, and in which state. A transaction can be used wherever the catalog can. */
export type Catalog = Kysely<CatalogSchema>;
export type CatalogTransaction = Transaction<CatalogSchema>;

/** Opens the catalog and brings its schema up to date. @throws when it is from a newer version */
export async function openCatalog(path: string): Promise<Catalog> {
  const catalog = new Kysely<CatalogSchema>({ dialect: nodeSqliteDialect(path) });
  const migrator = new Migrator({ db: catalog, provider: { getMigrations: async () => MIGRATIONS } });
  const { error } = await migrator.migrateToLatest();
  if (error !== undefined)
    throw new Error(`the catalog ${path} cannot be brought up to date: ${(error as Error).message}`);
  return catalog;
}

/** Whether it is the catalog that failed: its disk is full or broken. What was to be written down has not been. */
export function isCatalogError(error: unknown): error is Error {
  return error instanceof Error && (error as NodeJS.ErrnoException).code === 'ERR_SQLITE_ERROR';
}
