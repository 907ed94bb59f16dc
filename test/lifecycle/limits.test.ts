import assert from 'node:assert/strict';
import { test } from 'node:test';
import { sql } from 'kysely';
import { openCatalog } from '../../src/catalog/catalog.ts';
import type { Sha256 } from '../../src/types/units.ts';
import { insertSnapshot, OWNER } from '../support/catalog-rows.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';

test('the number of snapshots that an account has is kept as they come and go, or are undone', async (t) => {
  const catalog = await openCatalog(`${temporaryDirectory(t)}/catalog.sqlite`);
  t.after(() => catalog.destroy());
  const counted = async (): Promise<number> => {
    const row = await catalog.selectFrom('snapshot_counts').selectAll().executeTakeFirst();
    const rows = await catalog.selectFrom('snapshots').select('snapshot_id').execute();
    assert.equal(row?.number ?? 0, rows.length);
    if (row !== undefined) assert.equal(row.account_id, OWNER.account_id);
    return rows.length;
  };
  assert.equal(await counted(), 0);
  const first = await insertSnapshot(catalog, {});
  await insertSnapshot(catalog, { root: 'a'.repeat(64) as Sha256 });
  const third = await insertSnapshot(catalog, {});
  assert.equal(await counted(), 3);
  await catalog.updateTable('snapshots').set({ state: 'error' }).where('snapshot_id', '=', third.snapshot_id).execute();
  await catalog.deleteFrom('snapshots').where('snapshot_id', '=', first.snapshot_id).execute();
  assert.equal(await counted(), 2);
  const undone = catalog.transaction().execute(async (transaction) => {
    await transaction.deleteFrom('snapshots').execute();
    throw new Error('undone');
  });
  await assert.rejects(undone, /undone/);
  assert.equal(await counted(), 2);
  await catalog.deleteFrom('snapshots').execute();
  assert.equal(await counted(), 0);
});

test('what is pending of a volume is found without a look at all that it ever had', async (t) => {
  const catalog = await openCatalog(`${temporaryDirectory(t)}/catalog.sqlite`);
  t.after(() => catalog.destroy());
  const { rows } = await sql<{ detail: string }>`explain query plan select volume_id, count(*) from snapshots
    where volume_id in ('vol-1', 'vol-2') and state = 'pending' group by volume_id`.execute(catalog);
  assert.match(rows.map(({ detail }) => detail).join('\n'), /snapshots_pending/);
});
