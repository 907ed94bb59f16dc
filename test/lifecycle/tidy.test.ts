import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Catalog, openCatalog } from '../../src/catalog/catalog.ts';
import type { DataPlane } from '../../src/dataplane/data-plane.ts';
import type { DataKeys } from '../../src/keys/data-keys.ts';
import { Lifecycle } from '../../src/lifecycle/lifecycle.ts';
import { parseAccountId, type SnapshotId } from '../../src/types/ids.ts';
import type { Sha256 } from '../../src/types/units.ts';
import { insertSnapshot, insertVolume } from '../support/catalog-rows.ts';
import { MemoryStore } from '../support/memory-store.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const START = Date.parse('2026-01-01T00:00:00Z');

function lifecycleOf(
  catalog: Catalog,
  now: () => number,
  store: MemoryStore,
  log: (message: string) => void = () => undefined,
): Lifecycle {
  return new Lifecycle(
    {
      catalog,
      // Nothing here reaches the data plane: these snapshots have no cut.
      dataPlane: { stopping: false } as DataPlane,
      store,
      keys: {} as DataKeys,
      now: () => new Date(now()),
      log: (_, message) => log(message),
    },
    { everyDays: 0, bytesPerSecond: 1 },
  );
}

test('data keys go when nothing is encrypted with them any more, and not before', async (t) => {
  const catalog = await openCatalog(`${temporaryDirectory(t)}/catalog.sqlite`);
  const used = ['of a snapshot', 'of a volume', 'of its origin', 'of a copy'];
  for (const data_key_id of [...used, 'of nothing']) {
    await catalog.insertInto('data_keys').values({ data_key_id, kms_key_arn: 'arn', wrapped: '' }).execute();
  }
  const [ofSnapshot, ofVolume, ofOrigin, ofCopy] = used;
  await insertSnapshot(catalog, { data_key_id: ofSnapshot });
  const plain = (await insertSnapshot(catalog, {})).snapshot_id;
  await insertVolume(catalog);
  const encrypted = await insertVolume(catalog);
  await catalog.updateTable('volumes').set({ data_key_id: ofVolume }).where('volume_id', '=', encrypted).execute();
  const restored = await insertVolume(catalog);
  await catalog.updateTable('volumes').set({ origin_key_id: ofOrigin }).where('volume_id', '=', restored).execute();
  await catalog
    .insertInto('snapshot_copies')
    .values({ snapshot_id: plain, source_root: 'a'.repeat(64) as Sha256, source_key_id: ofCopy })
    .execute();
  await lifecycleOf(catalog, () => START, new MemoryStore()).tidy();
  const left = await catalog.selectFrom('data_keys').select('data_key_id').execute();
  assert.deepEqual(left.map((row) => row.data_key_id).sort(), [...used].sort());
  await catalog.destroy();
});

test('a store that does not answer keeps one chore from its end, and none of the others', async (t) => {
  const catalog = await openCatalog(`${temporaryDirectory(t)}/catalog.sqlite`);
  const store = new MemoryStore();
  let asked = 0;
  store.beforeRequest = () => {
    asked += 1;
    return new Promise(() => undefined);
  };
  let now = START;
  const lifecycle = lifecycleOf(catalog, () => now, store);
  const { snapshot_id } = await insertSnapshot(catalog, { startedAt: START });
  void lifecycle.tidy();
  while (asked === 0) await new Promise(setImmediate);
  now = START + 25 * HOUR;
  // One waits for the store to say whose it is; so does, the next time, the collection; then nobody is left who would.
  void lifecycle.tidy();
  const stateOf = (): Promise<{ state: string }> =>
    catalog.selectFrom('snapshots').select('state').where('snapshot_id', '=', snapshot_id).executeTakeFirstOrThrow();
  while ((await stateOf()).state === 'pending') await new Promise(setImmediate);
  await new Promise(setImmediate);
  await lifecycle.tidy();
  assert.equal(asked, 1, 'what has not ended was begun again');
});

test('nothing stays pending for ever: lost imports and idle direct uploads end in error, in their time', async (t) => {
  const catalog = await openCatalog(`${temporaryDirectory(t)}/catalog.sqlite`);
  let now = START;
  const lifecycle = lifecycleOf(catalog, () => now, new MemoryStore());
  const { snapshot_id: imported, account_id } = await insertSnapshot(catalog, { startedAt: START });
  const direct = (await insertSnapshot(catalog, { startedAt: START })).snapshot_id;
  await catalog
    .insertInto('direct_uploads')
    .values({
      snapshot_id: direct,
      parent_snapshot_id: null,
      parent_root: null,
      timeout_minutes: 60,
      active_at: new Date(START).toISOString(),
      client_token: null,
      client_token_request: null,
    })
    .execute();
  const stateOf = async (id: SnapshotId): Promise<string> => {
    const row = await catalog
      .selectFrom('snapshots')
      .selectAll()
      .where('snapshot_id', '=', id)
      .executeTakeFirstOrThrow();
    return `${row.state} ${row.state_message}`.trim();
  };
  now = START + 0.9 * HOUR;
  await lifecycle.imports.heard(imported, account_id, { doneBlocks: 1, totalBlocks: 4, storedBytes: 5 });
  await lifecycle.tidy();
  assert.deepEqual([await stateOf(imported), await stateOf(direct)], ['pending', 'pending']);
  now = START + 1.05 * HOUR;
  await lifecycle.tidy();
  assert.equal(await stateOf(imported), 'pending');
  assert.match(await stateOf(direct), /^error The snapshot was not completed, nor written to, for 60 minutes/);
  const progress = { doneBlocks: 3, totalBlocks: 4, storedBytes: 5 };
  assert.equal(await lifecycle.imports.heard(direct, account_id, progress), false);
  assert.equal(
    await lifecycle.imports.heard(imported, parseAccountId('000000000002') ?? assert.fail(), progress),
    false,
  );
  assert.equal(await lifecycle.imports.heard(imported, account_id, progress), true);
  assert.deepEqual(lifecycle.snapshots.progressOf(imported), progress);
  now += 9 * MINUTE;
  await lifecycle.tidy();
  assert.equal(await stateOf(imported), 'pending');
  // A server that has just begun has not heard of it yet.
  const next = lifecycleOf(catalog, () => now, new MemoryStore());
  now += 9 * MINUTE;
  await next.tidy();
  assert.equal(await stateOf(imported), 'pending');
  now += 2 * MINUTE;
  await next.tidy();
  assert.match(await stateOf(imported), /^error Nothing was heard of the import for 10 minutes/);
  assert.equal(await next.imports.heard(imported, account_id, progress), false);
  await catalog.destroy();
});

test('garbage is collected a day after the last time, however often the server is started meanwhile', async (t) => {
  const catalog = await openCatalog(`${temporaryDirectory(t)}/catalog.sqlite`);
  const store = new MemoryStore();
  let now = START;
  const garbage = `packs/aa/${'a'.repeat(32)}`;
  await store.put(garbage, [Buffer.alloc(1000)]);
  for (let hour = 0; hour <= 25; hour += 5) {
    assert.ok(store.objects.has(garbage), `collected after ${hour} hours`);
    now = START + hour * HOUR;
    const lifecycle = lifecycleOf(catalog, () => now, store);
    now += MINUTE;
    await lifecycle.tidy();
  }
  assert.ok(!store.objects.has(garbage));
  await catalog.destroy();
});
