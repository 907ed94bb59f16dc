import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Catalog, openCatalog } from '../../src/catalog/catalog.ts';
import type { InstanceState } from '../../src/catalog/schema.ts';
import type { DataPlane } from '../../src/dataplane/data-plane.ts';
import type { DataKeys } from '../../src/keys/data-keys.ts';
import { Lifecycle } from '../../src/lifecycle/lifecycle.ts';
import type { InstanceId, VolumeId } from '../../src/types/ids.ts';
import { insertInstance, insertVolume } from '../support/catalog-rows.ts';
import { MemoryStore } from '../support/memory-store.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';

/** What is exported, by a data plane that does what it is told for each volume. */
class Exports {
  readonly now = new Set<VolumeId>();
  readonly asked: VolumeId[] = [];
  answer = async (_volumeId: VolumeId): Promise<void> => {};

  get dataPlane(): DataPlane {
    const exports = {
      stopping: false,
      exported: (volumeId: VolumeId) => (this.now.has(volumeId) ? { sizeBytes: 1 } : undefined),
      exportVolume: async (volumeId: VolumeId): Promise<void> => {
        this.asked.push(volumeId);
        await this.answer(volumeId);
        this.now.add(volumeId);
      },
      endExport: async (volumeId: VolumeId): Promise<void> => {
        this.now.delete(volumeId);
      },
    };
    return exports as Partial<DataPlane> as DataPlane;
  }
}

function lifecycleOf(catalog: Catalog, exports: Exports, log: (message: string) => void = () => undefined): Lifecycle {
  return new Lifecycle(
    {
      catalog,
      dataPlane: exports.dataPlane,
      store: new MemoryStore(),
      keys: {} as DataKeys,
      now: () => new Date(0),
      log: (_level, message) => log(message),
    },
    { everyDays: 0, bytesPerSecond: 1 },
  );
}

async function stateOf(catalog: Catalog, instanceId: InstanceId): Promise<InstanceState> {
  const found = catalog.selectFrom('instances').select('state').where('instance_id', '=', instanceId);
  return (await found.executeTakeFirstOrThrow()).state;
}

test('an instance that stops leaves a shared volume to the one that runs, or comes up just now', async (t) => {
  const catalog = await openCatalog(`${temporaryDirectory(t)}/catalog.sqlite`);
  const shared = await insertVolume(catalog);
  for (const state of ['pending', 'running', 'stopping', 'stopped', 'shutting-down'] as const) {
    const exports = new Exports();
    exports.now.add(shared);
    const stops = await insertInstance(catalog, 'stopping', [shared]);
    const other = await insertInstance(catalog, state, [shared]);
    await lifecycleOf(catalog, exports).instances.bringDown(stops);
    assert.equal(exports.now.has(shared), state === 'pending' || state === 'running', state);
    assert.equal(await stateOf(catalog, stops), 'stopped');
    await catalog.deleteFrom('attachments').where('instance_id', 'in', [stops, other]).execute();
  }
  await catalog.destroy();
});

test('one volume that cannot be had, or not yet, keeps no other from its guests', async (t) => {
  const catalog = await openCatalog(`${temporaryDirectory(t)}/catalog.sqlite`);
  const [silent, broken, beside, good] = await Promise.all([1, 2, 3, 4].map(() => insertVolume(catalog)));
  const waits = await insertInstance(catalog, 'running', [silent]);
  const fails = await insertInstance(catalog, 'pending', [broken, beside]);
  const works = await insertInstance(catalog, 'pending', [good]);
  const exports = new Exports();
  const key = Promise.withResolvers<void>();
  exports.answer = async (volumeId) => {
    if (volumeId === silent) await key.promise;
    if (volumeId === broken) throw new Error('its files are damaged');
  };
  const said: string[] = [];
  const lifecycle = lifecycleOf(catalog, exports, (message) => said.push(message));
  let isOver = false;
  const finishing = lifecycle.finishBegun().then(() => {
    isOver = true;
  });
  // Catalog and exports answer within some turns of the event loop.
  for (let turns = 0; turns < 1000 && !(exports.now.has(good) && exports.now.has(beside)); turns += 1) {
    await new Promise(setImmediate);
  }
  assert.deepEqual([...exports.now].sort(), [good, beside].sort());
  await lifecycle.locks.hold([fails, works], async () => undefined);
  assert.equal(await stateOf(catalog, works), 'running');
  assert.equal(await stateOf(catalog, fails), 'pending');
  assert.deepEqual(said, [`${fails} is not as it should be, trying again: its files are damaged`]);
  assert.ok(!isOver, 'nobody has waited for the key');
  key.resolve();
  await finishing;
  assert.ok(exports.now.has(silent));
  assert.equal(await stateOf(catalog, waits), 'running');

  // The next time only what is missing is asked for.
  exports.asked.length = 0;
  exports.answer = async () => undefined;
  await lifecycle.finishBegun();
  assert.deepEqual([...exports.asked].sort(), [broken, beside].sort());
  assert.equal(await stateOf(catalog, fails), 'running');
  await catalog.destroy();
});
