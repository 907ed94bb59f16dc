import assert from 'node:assert/strict';
import { DatabaseSync } from 'node:sqlite';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { openCatalog } from '../../src/catalog/catalog.ts';
import type { DataPlane } from '../../src/dataplane/data-plane.ts';
import type { DataKeys } from '../../src/keys/data-keys.ts';
import { Lifecycle } from '../../src/lifecycle/lifecycle.ts';
import type { Captured } from '../../src/snapshots/capture.ts';
import type { SnapshotId } from '../../src/types/ids.ts';
import { asEpoch, type Sha256 } from '../../src/types/units.ts';
import { insertSnapshot, insertVolume } from '../support/catalog-rows.ts';
import { MemoryStore } from '../support/memory-store.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';

const CAPTURED: Captured = { root: 'a'.repeat(64) as Sha256, dataBlocks: 1, storedBlocks: 1, storedBytes: 10 };

/** A snapshot on its way, of a worker that stores it at once, and a catalog whose disk can be full. */
async function pendingSnapshot(t: TestContext, capture = async () => CAPTURED) {
  const path = `${temporaryDirectory(t)}/catalog.sqlite`;
  const catalog = await openCatalog(path);
  t.after(() => catalog.destroy());
  const logged: string[] = [];
  const dataPlane = {
    stopping: false,
    capture,
    finishCut: async () => undefined,
  } as unknown as DataPlane;
  t.after(() => Object.assign(dataPlane, { stopping: true }));
  const lifecycle = new Lifecycle(
    {
      catalog,
      dataPlane,
      store: new MemoryStore(),
      keys: {} as DataKeys,
      now: () => new Date(),
      log: (_, message) => logged.push(message),
    },
    { everyDays: 0, bytesPerSecond: 1 },
  );
  const volume_id = await insertVolume(catalog);
  const { snapshot_id } = await insertSnapshot(catalog, { volume_id, boundary: asEpoch(2) });
  const otherHand = new DatabaseSync(path);
  t.after(() => otherHand.close());
  const fill = (table: string): void =>
    otherHand.exec(
      `create trigger full before update on ${table} begin select raise(abort, 'database or disk is full'); end`,
    );
  const makeRoom = (): void => otherHand.exec('drop trigger full');
  const stateOf = async (id: SnapshotId): Promise<string> => {
    const { state } = await catalog
      .selectFrom('snapshots')
      .select('state')
      .where('snapshot_id', '=', id)
      .executeTakeFirstOrThrow();
    return state;
  };
  return { lifecycle, volume_id, snapshot_id, stateOf, fill, makeRoom, logged };
}

for (const [what, table] of [
  ['that it is stored', 'volumes'],
  ['that its set is complete', 'snapshot_sets'],
]) {
  test(`a catalog that cannot take ${what} now is asked until it does`, async (t) => {
    const { lifecycle, volume_id, snapshot_id, stateOf, fill, makeRoom, logged } = await pendingSnapshot(t);
    fill(table);
    lifecycle.snapshots.kick(volume_id);
    while (!logged.some((line) => line.includes('disk is full'))) await sleep(10);
    await sleep(50);
    assert.equal(await stateOf(snapshot_id), 'pending');
    makeRoom();
    while ((await stateOf(snapshot_id)) === 'pending') await sleep(10);
    assert.equal(await stateOf(snapshot_id), 'completed');
  });
}

test('a snapshot whose volume cannot be read for want of open files waits until it can', {
  timeout: 60_000,
}, async (t) => {
  let isFree = false;
  const { lifecycle, volume_id, snapshot_id, stateOf, logged } = await pendingSnapshot(t, async () => {
    if (isFree) return CAPTURED;
    throw Object.assign(new Error("EMFILE: too many open files, open 'data.00'"), { code: 'EMFILE' });
  });
  lifecycle.snapshots.kick(volume_id);
  while (logged.length === 0) await sleep(10);
  assert.match(logged[0], /cannot be read, for want of open files, trying again: EMFILE/);
  assert.equal(await stateOf(snapshot_id), 'pending');
  isFree = true;
  while ((await stateOf(snapshot_id)) === 'pending') await sleep(10);
  assert.equal(await stateOf(snapshot_id), 'completed');
});
