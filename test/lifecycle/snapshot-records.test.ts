import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { type Catalog, openCatalog } from '../../src/catalog/catalog.ts';
import { putTags } from '../../src/catalog/tags.ts';
import { SnapshotRecords } from '../../src/lifecycle/snapshot-records.ts';
import { getSnapshotRecord, recordKey } from '../../src/snapshots/snapshot-record.ts';
import type { SnapshotId } from '../../src/types/ids.ts';
import type { Sha256 } from '../../src/types/units.ts';
import { insertSnapshot, OWNER } from '../support/catalog-rows.ts';
import { MemoryStore } from '../support/memory-store.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';

async function withOneSnapshot(t: TestContext) {
  const catalog = await openCatalog(`${temporaryDirectory(t)}/catalog.sqlite`);
  t.after(() => catalog.destroy());
  const store = new MemoryStore();
  const { snapshot_id, set_id } = await insertSnapshot(catalog, { root: 'a'.repeat(64) as Sha256 });
  return { catalog, store, records: new SnapshotRecords(catalog, store), snapshot_id, set_id };
}

test('a deleted snapshot’s record that the store does not remove now is removed later, and is no stranger until then', async (t) => {
  const { catalog, store, records, snapshot_id, set_id } = await withOneSnapshot(t);
  await records.markStale(catalog, [snapshot_id]);
  await records.refresh([snapshot_id]);
  assert.ok(store.objects.has(recordKey(snapshot_id)));
  await records.requireAllKnown(async () => undefined);
  await catalog.deleteFrom('snapshots').execute();
  await assert.rejects(
    records.requireAllKnown(async () => undefined),
    new RegExp(snapshot_id),
  );
  // As DeleteSnapshot has it.
  await catalog.insertInto('deleted_records').values({ snapshot_id, set_id }).execute();
  await records.requireAllKnown(async () => undefined);
  store.beforeRequest = (request) => {
    if (request === 'remove') throw new Error('away');
  };
  await assert.rejects(records.remove(snapshot_id, set_id), /away/);
  await assert.rejects(records.refreshStale(), /away/);
  store.beforeRequest = () => undefined;
  await records.refreshStale();
  assert.equal(store.objects.size, 0);
  assert.deepEqual(await catalog.selectFrom('deleted_records').selectAll().execute(), []);
  await records.requireAllKnown(async () => undefined);
});

test('a snapshot that is deleted while its set’s records are being written leaves none behind', async (t) => {
  const { catalog, store, records, snapshot_id, set_id } = await withOneSnapshot(t);
  const [begun, go] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  store.beforeRequest = (request) => {
    if (request !== 'put') return;
    begun.resolve();
    return go.promise;
  };
  await records.markStale(catalog, [snapshot_id]);
  const written = records.refresh([snapshot_id]);
  await begun.promise;
  await catalog.deleteFrom('snapshots').execute();
  await catalog.insertInto('deleted_records').values({ snapshot_id, set_id }).execute();
  const removed = records.remove(snapshot_id, set_id);
  await new Promise(setImmediate);
  go.resolve();
  await Promise.all([written, removed]);
  assert.equal(store.objects.size, 0);
});

async function setTag(catalog: Catalog, records: SnapshotRecords, snapshot: SnapshotId, value: string): Promise<void> {
  const owner = { ...OWNER, accountId: OWNER.account_id, resourceId: snapshot, resourceType: 'snapshot' } as const;
  // As CreateTags has it.
  await catalog.transaction().execute(async (transaction) => {
    await putTags(transaction, owner, new Map([['state', value]]));
    await records.markStale(transaction, [snapshot]);
  });
}

async function tagsInStore(store: MemoryStore, snapshot: SnapshotId): Promise<unknown> {
  return (await getSnapshotRecord(store, snapshot)).tags;
}

test('a record that is changed once more while it is being written is written again, though the first writer is done', async (t) => {
  const { catalog, store, records, snapshot_id } = await withOneSnapshot(t);
  await setTag(catalog, records, snapshot_id, 'first');
  const [begun, go] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  store.beforeRequest = (request) => {
    if (request !== 'put') return;
    begun.resolve();
    return go.promise;
  };
  const first = records.refresh([snapshot_id]);
  await begun.promise;
  // Killed after this commit, the second call never comes to write.
  await setTag(catalog, records, snapshot_id, 'second');
  go.resolve();
  await first;
  assert.deepEqual(await tagsInStore(store, snapshot_id), [{ key: 'state', value: 'first' }]);
  await records.refreshStale();
  assert.deepEqual(await tagsInStore(store, snapshot_id), [{ key: 'state', value: 'second' }]);
  assert.deepEqual(await catalog.selectFrom('stale_records').selectAll().execute(), []);
});

test('one record that cannot be written does not keep the others from it', async (t) => {
  const { catalog, store, records, snapshot_id } = await withOneSnapshot(t);
  const other = await insertSnapshot(catalog, { root: 'b'.repeat(64) as Sha256 });
  for (const id of [snapshot_id, other.snapshot_id]) await setTag(catalog, records, id, 'new');
  store.beforeRequest = (_request, key) => {
    if (key === recordKey(snapshot_id)) throw new Error('refused');
  };
  await assert.rejects(records.refreshStale(), /refused/);
  assert.deepEqual(await tagsInStore(store, other.snapshot_id), [{ key: 'state', value: 'new' }]);
  const left = await catalog.selectFrom('stale_records').select('snapshot_id').execute();
  assert.deepEqual(left, [{ snapshot_id }]);
});
