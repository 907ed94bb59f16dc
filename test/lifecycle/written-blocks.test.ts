import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { sql } from 'kysely';
import { openCatalog } from '../../src/catalog/catalog.ts';
import type { DataPlane } from '../../src/dataplane/data-plane.ts';
import type { DataKeys } from '../../src/keys/data-keys.ts';
import { Lifecycle } from '../../src/lifecycle/lifecycle.ts';
import { WrittenBlocks } from '../../src/lifecycle/written-blocks.ts';
import type { PackId } from '../../src/snapshots/block-encoding.ts';
import { packKey } from '../../src/snapshots/pack.ts';
import { newId, type SnapshotId } from '../../src/types/ids.ts';
import type { Sha256 } from '../../src/types/units.ts';
import { insertSnapshot } from '../support/catalog-rows.ts';
import { MemoryStore } from '../support/memory-store.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';

const packOf = (letter: string, number: number): PackId =>
  `${letter}${number.toString(16).padStart(31, '0')}` as PackId;

/** A catalog with an upload that goes on, and some that have ended in every way. */
async function world(t: TestContext, blocks: number) {
  const catalog = await openCatalog(`${temporaryDirectory(t)}/catalog.sqlite`);
  t.after(() => catalog.destroy());
  let rests = 0;
  const moment = { onRest: async (): Promise<void> => undefined };
  const dataPlane = {
    stopping: false,
    afterHold: async () => {
      rests += 1;
      await moment.onRest();
    },
  } as Partial<DataPlane> as DataPlane;
  const began = async (id: SnapshotId, parent: string): Promise<void> => {
    await catalog
      .insertInto('direct_uploads')
      .values({
        snapshot_id: id,
        parent_snapshot_id: null,
        parent_root: parent.repeat(64) as Sha256,
        timeout_minutes: 60,
        active_at: new Date(0).toISOString(),
        client_token: null,
        client_token_request: null,
      })
      .execute();
  };
  // Every third block is zeroes; two that follow share a pack.
  const wrote = async (id: SnapshotId, letter: string): Promise<void> => {
    await sql`with recursive numbers (n) as (select 0 union all select n + 1 from numbers where n < ${blocks - 1})
      insert into direct_blocks (snapshot_id, block_index, sha256, block_hash, pack, pack_offset, stored_length, encoding)
      select ${id}, n * 2, '', '', iif(n % 3 = 0, null, ${letter} || printf('%031x', n / 3)), 0, 0, 0
      from numbers`.execute(catalog);
  };
  const going = (await insertSnapshot(catalog, {})).snapshot_id;
  await began(going, 'a');
  await wrote(going, 'a');
  const failed = (await insertSnapshot(catalog, {})).snapshot_id;
  await began(failed, 'b');
  await wrote(failed, 'b');
  await catalog.updateTable('snapshots').set({ state: 'error' }).where('snapshot_id', '=', failed).execute();
  const { snapshot_id: completed } = await insertSnapshot(catalog, { root: 'c'.repeat(64) as Sha256 });
  await wrote(completed, 'c');
  // Deleted, with the row that says that it was being written.
  await wrote(newId('snap'), 'd');
  const left = async () =>
    catalog
      .selectFrom('direct_blocks')
      .select(['snapshot_id', (row) => row.fn.countAll<number>().as('number')])
      .groupBy('snapshot_id')
      .execute();
  return { catalog, dataPlane, going, failed, left, began, wrote, moment, rests: () => rests };
}

test('of the blocks that were written those stay whose snapshot is being written still; others have their turn meanwhile', async (t) => {
  const { catalog, dataPlane, going, left, rests } = await world(t, 9_000);
  const blocks = new WrittenBlocks({ catalog, dataPlane });
  const expected = new Set(Array.from({ length: 3_000 }, (_, number) => packOf('a', number)));
  assert.deepEqual(await blocks.packs(), expected);
  assert.deepEqual(await blocks.parents(), [{ parent_root: 'a'.repeat(64) }]);
  const before = rests();
  await blocks.sweep();
  assert.ok(rests() - before >= 9, `${rests() - before} rests for 27,000 rows`);
  assert.deepEqual(await left(), [{ snapshot_id: going, number: 9_000 }]);
  assert.deepEqual(await blocks.packs(), expected);
  await catalog.updateTable('snapshots').set({ state: 'error' }).where('snapshot_id', '=', going).execute();
  await blocks.sweep();
  assert.deepEqual(await left(), []);
});

test('a snapshot whose writing begins while others are swept loses none of its blocks', async (t) => {
  const { catalog, dataPlane, going, left, began, wrote, moment } = await world(t, 6);
  // Behind all others, and so still to come.
  const late = (await insertSnapshot(catalog, {})).snapshot_id;
  const last = `snap-${'f'.repeat(17)}` as SnapshotId;
  await catalog.updateTable('snapshots').set({ snapshot_id: last }).where('snapshot_id', '=', late).execute();
  let begun: Promise<void> | undefined;
  moment.onRest = () => {
    begun ??= began(last, 'e').then(() => wrote(last, 'e'));
    return begun;
  };
  await new WrittenBlocks({ catalog, dataPlane }).sweep();
  assert.ok(begun !== undefined);
  const expected = [going, last].sort().map((snapshot_id) => ({ snapshot_id, number: 6 }));
  assert.deepEqual(await left(), expected);
});

test('what was written to a snapshot that has failed, or was deleted, is garbage; of one that is being written nothing is', async (t) => {
  const { catalog, dataPlane, going, left } = await world(t, 6);
  const store = new MemoryStore();
  const lifecycle = new Lifecycle(
    { catalog, dataPlane, store, keys: {} as DataKeys, now: () => new Date(0), log: () => undefined },
    { everyDays: 0, bytesPerSecond: 1 },
  );
  await lifecycle.storeOwner.claim();
  // Their manifests are not what this is about.
  await catalog.deleteFrom('snapshots').where('root', 'is not', null).execute();
  await catalog.updateTable('direct_uploads').set({ parent_root: null }).execute();
  for (const letter of ['a', 'b', 'd']) {
    for (const number of [0, 1]) await store.put(packKey(packOf(letter, number)), [Buffer.from('bytes')]);
  }
  const packs = (): string[] => [...store.objects.keys()].filter((key) => key.startsWith('packs/')).sort();
  const collected = await lifecycle.collector.collect(true);
  assert.equal(collected.busy, undefined);
  assert.deepEqual(packs(), [packKey(packOf('a', 0)), packKey(packOf('a', 1))]);
  await lifecycle.tidy();
  assert.deepEqual(await left(), [{ snapshot_id: going, number: 6 }]);
});
