import assert from 'node:assert/strict';
import { test } from 'node:test';
import { openCatalog } from '../../src/catalog/catalog.ts';
import { allSnapshots } from '../../src/lifecycle/all-snapshots.ts';
import { newId } from '../../src/types/ids.ts';
import { insertSnapshot } from '../support/catalog-rows.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';

test('all snapshots are gone through, each once, and others have their turn between', async (t) => {
  const catalog = await openCatalog(`${temporaryDirectory(t)}/catalog.sqlite`);
  t.after(() => catalog.destroy());
  const { snapshot_id, ...row } = await insertSnapshot(catalog, {});
  const there = new Set([snapshot_id]);
  await catalog.transaction().execute(async (transaction) => {
    while (there.size < 8_500) {
      const id = newId('snap');
      there.add(id);
      await transaction
        .insertInto('snapshots')
        .values({ ...row, snapshot_id: id })
        .execute();
    }
  });
  const seen: string[] = [];
  const turns: number[] = [];
  const gone = await Array.fromAsync(
    allSnapshots(catalog, async () => {
      turns.push(seen.length);
    }),
    (each) => seen.push(each.snapshot_id),
  );
  assert.equal(gone.length, there.size);
  assert.deepEqual(new Set(seen), there);
  assert.deepEqual(turns, [4_000, 8_000, 8_500]);
});
