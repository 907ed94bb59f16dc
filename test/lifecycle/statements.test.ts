import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Kysely, sql } from 'kysely';
import { nodeSqliteDialect } from '../../src/catalog/node-sqlite.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';

test('statements that are kept give each asker its own rows, live through failures, and see a table that changed', async (t) => {
  const database = new Kysely<{ things: { id: number; name: string } }>({
    dialect: nodeSqliteDialect(`${temporaryDirectory(t)}/catalog.sqlite`),
  });
  t.after(() => database.destroy());
  await sql`create table things (id integer primary key, name text not null)`.execute(database);
  const insert = (id: number, name: string): Promise<unknown> =>
    database.insertInto('things').values({ id, name }).execute();
  await Promise.all([insert(1, 'one'), insert(2, 'two'), insert(3, 'three')]);
  await assert.rejects(insert(2, 'again'), /UNIQUE/);
  await insert(4, 'four');
  const named = (id: number): Promise<{ id: number; name: string } | undefined> =>
    database.selectFrom('things').selectAll().where('id', '=', id).executeTakeFirst();
  assert.deepEqual(
    (await Promise.all([named(3), named(1), named(9), named(4)])).map((row) => row?.name),
    ['three', 'one', undefined, 'four'],
  );
  // One that was gone through in part is begun again.
  const streamed: string[] = [];
  for await (const { name } of database.selectFrom('things').selectAll().stream()) {
    streamed.push(name);
    if (streamed.length === 2) break;
  }
  assert.deepEqual(streamed, ['one', 'two']);
  assert.equal((await database.selectFrom('things').selectAll().execute()).length, 4);
  await sql`alter table things add column size integer not null default 7`.execute(database);
  assert.deepEqual({ ...(await named(1)) }, { id: 1, name: 'one', size: 7 });
  // More statements than are kept.
  for (let count = 1; count <= 250; count += 1) {
    const ids = Array.from({ length: count }, (_, index) => index + 1);
    const found = await database.selectFrom('things').select('id').where('id', 'in', ids).execute();
    assert.equal(found.length, Math.min(count, 4));
  }
  assert.equal((await named(2))?.name, 'two');
});
