import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { type Catalog, openCatalog } from '../../src/catalog/catalog.ts';
import { type OwedSnapshot, PendingSnapshots } from '../../src/lifecycle/pending-snapshots.ts';
import type { Captured } from '../../src/snapshots/capture.ts';
import { asEpoch, NO_BASE, type Sha256 } from '../../src/types/units.ts';
import { insertSnapshot, insertVolume } from '../support/catalog-rows.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';

const captured = (digit: string): Captured => ({
  root: digit.repeat(64) as Sha256,
  dataBlocks: 3,
  storedBlocks: 2,
  storedBytes: 1000,
});

async function openNew(t: TestContext): Promise<Catalog> {
  const catalog = await openCatalog(`${temporaryDirectory(t)}/catalog.sqlite`);
  t.after(() => catalog.destroy());
  return catalog;
}

test('each volume gets its oldest cut, and the base moves on with each that is stored', async (t) => {
  const catalog = await openNew(t);
  const pending = new PendingSnapshots(catalog);
  const volumes = [await insertVolume(catalog), await insertVolume(catalog), await insertVolume(catalog)];
  for (const volume_id of volumes.slice(0, 2)) {
    await insertSnapshot(catalog, { volume_id, boundary: asEpoch(5) });
    await insertSnapshot(catalog, { volume_id, boundary: asEpoch(3) });
  }
  const [first, second, third] = await Promise.all(volumes.map((volumeId) => pending.next(volumeId)));
  assert.equal(third, undefined);
  assert.ok(first !== undefined && second !== undefined);
  assert.deepEqual(
    [first.snapshot.volume_id, first.boundary, first.base],
    [volumes[0], 3, { boundary: 1, root: undefined }],
  );
  assert.deepEqual([second.snapshot.volume_id, second.boundary], [volumes[1], 3]);
  const stored = await Promise.all([
    pending.store(first, async () => captured('a')),
    pending.store(second, async () => captured('b')),
  ]);
  assert.deepEqual(stored, [
    { endsSet: true, isBase: true },
    { endsSet: true, isBase: true },
  ]);
  const [next, nextOfSecond] = await Promise.all(volumes.slice(0, 2).map((volumeId) => pending.next(volumeId)));
  assert.deepEqual([next?.boundary, next?.base], [5, { boundary: 3, root: 'a'.repeat(64) }]);
  assert.deepEqual([nextOfSecond?.boundary, nextOfSecond?.base], [5, { boundary: 3, root: 'b'.repeat(64) }]);
});

test('a snapshot that fails with its set while it waits for others to be stored stays failed; its bytes are the base', async (t) => {
  const catalog = await openNew(t);
  const pending = new PendingSnapshots(catalog);
  const [volumeId, other] = [await insertVolume(catalog), await insertVolume(catalog)];
  const { snapshot_id } = await insertSnapshot(catalog, { volume_id: volumeId, boundary: asEpoch(2) });
  await insertSnapshot(catalog, { volume_id: other, boundary: asEpoch(2) });
  const [owed, othersOwed] = await Promise.all([pending.next(volumeId), pending.next(other)]);
  assert.ok(owed !== undefined && othersOwed !== undefined);
  const slow = Promise.withResolvers<Captured>();
  const failing = pending.store(othersOwed, () => slow.promise);
  const storing = pending.store(owed, async () => captured('c'));
  // As SnapshotRunner fails a set.
  await catalog
    .updateTable('snapshots')
    .set({ state: 'error', boundary: null })
    .where('snapshot_id', '=', snapshot_id)
    .execute();
  slow.reject(new Error('its bytes are gone'));
  await assert.rejects(failing, /its bytes are gone/);
  assert.deepEqual(await storing, { endsSet: false, isBase: true });
  const row = await catalog
    .selectFrom('snapshots')
    .select(['state', 'root'])
    .where('snapshot_id', '=', snapshot_id)
    .executeTakeFirstOrThrow();
  assert.deepEqual({ ...row }, { state: 'error', root: null });
  const volume = await catalog
    .selectFrom('volumes')
    .select(['base_boundary', 'base_root'])
    .where('volume_id', '=', volumeId)
    .executeTakeFirstOrThrow();
  assert.deepEqual({ ...volume }, { base_boundary: 2, base_root: 'c'.repeat(64) });
});

test('a base that is given up while a snapshot is being stored on top of it stays so', async (t) => {
  const catalog = await openNew(t);
  const pending = new PendingSnapshots(catalog);
  const volumeId = await insertVolume(catalog);
  await insertSnapshot(catalog, { volume_id: volumeId, boundary: asEpoch(2) });
  const owed = await pending.next(volumeId);
  assert.ok(owed !== undefined);
  const stored = pending.store(owed, async () => {
    await catalog.updateTable('volumes').set({ base_boundary: NO_BASE, base_root: null }).execute();
    return captured('a');
  });
  assert.deepEqual(await stored, { endsSet: true, isBase: false });
  const { base_boundary, base_root } = await catalog.selectFrom('volumes').selectAll().executeTakeFirstOrThrow();
  assert.deepEqual([base_boundary, base_root], [NO_BASE, null]);
});

test('of the snapshots that end a set in one commit one says so, and none before', async (t) => {
  const catalog = await openNew(t);
  const pending = new PendingSnapshots(catalog);
  const owed: OwedSnapshot[] = [];
  for (const _ of ['a', 'b', 'c', 'd']) {
    const volumeId = await insertVolume(catalog);
    await insertSnapshot(catalog, { volume_id: volumeId, boundary: asEpoch(2) });
    owed.push((await pending.next(volumeId)) ?? assert.fail());
  }
  const [{ snapshot: first }] = owed;
  const { set_id } = first;
  await catalog.updateTable('snapshots').set({ set_id }).execute();
  for (const each of owed) each.snapshot.set_id = set_id;
  const store = (numbers: readonly number[]): Promise<boolean[]> =>
    Promise.all(numbers.map(async (n) => (await pending.store(owed[n], async () => captured('a'))).endsSet));
  assert.deepEqual(await store([2]), [false]);
  assert.deepEqual(await store([0]), [false]);
  assert.deepEqual(await store([1, 3]), [false, true]);
});
