import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { DatabaseSync } from 'node:sqlite';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Kysely, Migrator, sql } from 'kysely';
import { openCatalog } from '../../src/catalog/catalog.ts';
import { nodeSqliteDialect } from '../../src/catalog/node-sqlite.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';

const CATALOG = new URL('../../src/catalog/catalog.ts', import.meta.url).href;
const KILLS = 12;

test('killed while it brings the schema up to date, the next start does that', async (t) => {
  const directory = temporaryDirectory(t);
  const program = `const { openCatalog } = await import(${JSON.stringify(CATALOG)});
    process.stdout.write('begins');
    await openCatalog(process.argv[1]);
    process.stdout.write('done');`;
  let unfinished = 0;
  for (let kill = 0; kill < KILLS; kill += 1) {
    const path = `${directory}/${kill}.sqlite`;
    const child = spawn(process.execPath, ['--input-type=module', '-e', program, path], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let said = '';
    child.stdout.on('data', (text) => {
      said += text;
    });
    const closed = once(child, 'close');
    await once(child.stdout, 'data');
    await sleep(kill * 3);
    child.kill('SIGKILL');
    await closed;
    if (!said.includes('done')) unfinished += 1;
    const catalog = await openCatalog(path);
    assert.deepEqual(await catalog.selectFrom('snapshots').selectAll().execute(), []);
    await catalog.destroy();
  }
  assert.ok(unfinished > 0, 'each was done before it was killed');
});

test('of an upgrade that fails in its midst nothing stays', async (t) => {
  const path = `${temporaryDirectory(t)}/catalog.sqlite`;
  const migrate = (second: string) =>
    new Migrator({
      db: new Kysely({ dialect: nodeSqliteDialect(path) }),
      provider: {
        getMigrations: async () => ({
          '1': { up: (db) => sql`create table first (value text)`.execute(db).then(() => undefined) },
          '2': {
            async up(db) {
              await sql`create table second (value text)`.execute(db);
              await sql.raw(second).execute(db);
            },
          },
        }),
      },
    }).migrateToLatest();
  assert.match(String((await migrate('no SQL')).error), /syntax error/);
  const database = new DatabaseSync(path);
  const tables = database.prepare("select name from sqlite_master where name in ('first', 'second')").all();
  assert.deepEqual(tables, []);
  database.close();
  assert.equal((await migrate('create table third (value text)')).error, undefined);
});
