import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { openCatalog } from '../../src/catalog/catalog.ts';
import { SnapshotRecords } from '../../src/lifecycle/snapshot-records.ts';
import { recordKey } from '../../src/snapshots/snapshot-record.ts';
import type { Sha256 } from '../../src/types/units.ts';
import { insertSnapshot } from '../support/catalog-rows.ts';
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
  await records.refresh(snapshot_id);
  assert.ok(store.objects.has(recordKey(snapshot_id)));
  await records.requireAllKnown();
  await catalog.deleteFrom('snapshots').execute();
  await assert.rejects(records.requireAllKnown(), new RegExp(snapshot_id));
  // As DeleteSnapshot has it.
  await catalog.insertInto('deleted_records').values({ snapshot_id, set_id }).execute();
  await records.requireAllKnown();
  store.beforeRequest = (request) => {
    if (request === 'remove') throw new Error('away');
  };
  await assert.rejects(records.remove(snapshot_id, set_id), /away/);
  await assert.rejects(records.refreshStale(), /away/);
  store.beforeRequest = () => undefined;
  await records.refreshStale();
  assert.equal(store.objects.size, 0);
  assert.deepEqual(await catalog.selectFrom('deleted_records').selectAll().execute(), []);
  await records.requireAllKnown();
});

test('a snapshot that is deleted while its set’s records are being written leaves none behind', async (t) => {
  const { catalog, store, records, snapshot_id, set_id } = await withOneSnapshot(t);
  const [begun, go] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  store.beforeRequest = (request) => {
    if (request !== 'put') return;
    begun.resolve();
    return go.promise;
  };
  const written = records.refresh(snapshot_id);
  await begun.promise;
  await catalog.deleteFrom('snapshots').execute();
  await catalog.insertInto('deleted_records').values({ snapshot_id, set_id }).execute();
  const removed = records.remove(snapshot_id, set_id);
  await new Promise(setImmediate);
  go.resolve();
  await Promise.all([written, removed]);
  assert.equal(store.objects.size, 0);
});
