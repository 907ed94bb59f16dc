import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type RawBuilder, sql } from 'kysely';
import { openCatalog } from '../../src/catalog/catalog.ts';
import { putIntoBin, takeFromBin } from '../../src/catalog/recycle-bin.ts';
import { putTags, tagsOf } from '../../src/catalog/tags.ts';
import { emptyBin } from '../../src/lifecycle/recycle-bin.ts';
import { ResourceLocks } from '../../src/lifecycle/resource-locks.ts';
import { SnapshotRecords } from '../../src/lifecycle/snapshot-records.ts';
import { getSnapshotRecord, recordKey } from '../../src/snapshots/snapshot-record.ts';
import type { Sha256 } from '../../src/types/units.ts';
import { insertSnapshot, OWNER } from '../support/catalog-rows.ts';
import { MemoryStore } from '../support/memory-store.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';

const ENTERED = new Date('2026-01-01T00:00:00.000Z');
const EXIT = new Date('2026-01-02T00:00:00.000Z');

test('what is in the bin is deleted when its time is over, to the millisecond, and nothing else; its record goes later, if not now', async (t) => {
  const catalog = await openCatalog(`${temporaryDirectory(t)}/catalog.sqlite`);
  t.after(() => catalog.destroy());
  const store = new MemoryStore();
  const records = new SnapshotRecords(catalog, store);
  const some = { root: 'a'.repeat(64) as Sha256 };
  const [kept, gone, restored] = [
    await insertSnapshot(catalog, some),
    await insertSnapshot(catalog, some),
    await insertSnapshot(catalog, some),
  ];
  const ids = [kept, gone, restored].map(({ snapshot_id }) => snapshot_id);
  const owner = {
    resourceId: gone.snapshot_id,
    resourceType: 'snapshot' as const,
    accountId: OWNER.account_id,
    region: OWNER.region,
  };
  await putTags(catalog, owner, new Map([['k', 'v']]));
  await catalog.transaction().execute(async (transaction) => {
    for (const each of [gone, restored]) await putIntoBin(transaction, each, ENTERED, EXIT);
    await records.markStale(transaction, ids);
  });
  await records.refresh(ids);
  const record = await getSnapshotRecord(store, gone.snapshot_id);
  assert.deepEqual(
    [record.format, record.recycleBin],
    [4, { since: ENTERED.toISOString(), until: EXIT.toISOString() }],
  );
  assert.deepEqual(record.tags, [
    { key: 'aws:recycle-bin:resource-in-bin', value: 'true' },
    { key: 'k', value: 'v' },
  ]);
  assert.equal((await getSnapshotRecord(store, kept.snapshot_id)).format, 1);

  const locks = new ResourceLocks();
  assert.deepEqual(await emptyBin(catalog, locks, new Date(EXIT.getTime() - 1)), []);
  // Its owner takes one back while it is about to be deleted.
  const held = Promise.withResolvers<void>();
  const holding = locks.hold([restored.snapshot_id], () => held.promise);
  const emptying = emptyBin(catalog, locks, EXIT);
  await new Promise(setImmediate);
  await catalog.transaction().execute((transaction) => takeFromBin(transaction, restored.snapshot_id));
  held.resolve();
  await holding;
  assert.deepEqual(await emptying, [gone.snapshot_id]);
  const left = await catalog.selectFrom('snapshots').select('snapshot_id').orderBy('snapshot_id').execute();
  assert.deepEqual(
    left.map(({ snapshot_id }) => snapshot_id),
    [kept.snapshot_id, restored.snapshot_id].sort(),
  );
  assert.deepEqual([...(await tagsOf(catalog, ids)).keys()], []);

  store.beforeRequest = (request) => {
    if (request === 'remove') throw new Error('away');
  };
  await assert.rejects(records.refreshStale(), /away/);
  store.beforeRequest = () => undefined;
  // Until it is removed, nobody takes it for a stranger's.
  await records.requireAllKnown(async () => undefined);
  await records.refreshStale();
  assert.deepEqual(
    [...store.objects.keys()].sort(),
    [recordKey(kept.snapshot_id), recordKey(restored.snapshot_id)].sort(),
  );
});

test('lists go through what is in the bin, or what is not, and the question whose time is over through neither', async (t) => {
  const catalog = await openCatalog(`${temporaryDirectory(t)}/catalog.sqlite`);
  t.after(() => catalog.destroy());
  const planOf = async (query: RawBuilder<unknown>): Promise<string> => {
    const { rows } = await sql<{ detail: string }>`explain query plan ${query}`.execute(catalog);
    return rows.map(({ detail }) => detail).join();
  };
  const page = sql`account_id = 'a' and snapshot_id > 'b' order by snapshot_id limit 1001`;
  assert.match(await planOf(sql`select * from snapshots where binned_at is null and ${page}`), /out_of_bin/);
  assert.match(await planOf(sql`select * from snapshots where binned_at is not null and ${page}`), /in_bin/);
  assert.match(await planOf(sql`select snapshot_id from snapshots where binned_until <= 'c'`), /by_exit/);
});
