import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Catalog, openCatalog } from '../../src/catalog/catalog.ts';
import type { InstanceState } from '../../src/catalog/schema.ts';
import { type DataPlane, WorkerDiedError } from '../../src/dataplane/data-plane.ts';
import { type DataKeys, KeysUnavailableError } from '../../src/keys/data-keys.ts';
import { Lifecycle } from '../../src/lifecycle/lifecycle.ts';
import type { InstanceId, VolumeId } from '../../src/types/ids.ts';
import { asEpoch, GIB } from '../../src/types/units.ts';
import { insertInstance, insertSnapshot, insertVolume } from '../support/catalog-rows.ts';
import { MemoryStore } from '../support/memory-store.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';

/** A data plane that does what it is told for each volume. */
class Plane {
  readonly exported = new Set<VolumeId>();
  readonly made = new Set<VolumeId>();
  readonly grown = new Map<VolumeId, number>();
  readonly asked: VolumeId[] = [];
  answer = async (_volumeId: VolumeId): Promise<void> => {};

  get dataPlane(): DataPlane {
    const port = {
      stopping: false,
      exported: (volumeId: VolumeId) => (this.exported.has(volumeId) ? { sizeBytes: 1 } : undefined),
      exportVolume: async (volumeId: VolumeId): Promise<void> => {
        this.asked.push(volumeId);
        await this.answer(volumeId);
        this.exported.add(volumeId);
      },
      endExport: async (volumeId: VolumeId): Promise<void> => {
        this.exported.delete(volumeId);
      },
      create: async ({ volumeId }: { volumeId: VolumeId }): Promise<void> => {
        await this.answer(volumeId);
        this.made.add(volumeId);
      },
      grow: async (volumeId: VolumeId, sizeBytes: number): Promise<void> => {
        await this.answer(volumeId);
        this.grown.set(volumeId, sizeBytes);
      },
      remove: async (volumeId: VolumeId): Promise<void> => {
        await this.answer(volumeId);
        this.made.delete(volumeId);
      },
    };
    return port as Partial<DataPlane> as DataPlane;
  }
}

function lifecycleOf(catalog: Catalog, plane: Plane, log: (message: string) => void = () => undefined): Lifecycle {
  return new Lifecycle(
    {
      catalog,
      dataPlane: plane.dataPlane,
      store: new MemoryStore(),
      keys: { open: async () => undefined } as Partial<DataKeys> as DataKeys,
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
    const plane = new Plane();
    plane.exported.add(shared);
    const stops = await insertInstance(catalog, 'stopping', [shared]);
    const other = await insertInstance(catalog, state, [shared]);
    await lifecycleOf(catalog, plane).instances.bringDown(stops);
    assert.equal(plane.exported.has(shared), state === 'pending' || state === 'running', state);
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
  const plane = new Plane();
  const key = Promise.withResolvers<void>();
  plane.answer = async (volumeId) => {
    if (volumeId === silent) await key.promise;
    if (volumeId === broken) throw new Error('its files are damaged');
  };
  const said: string[] = [];
  const lifecycle = lifecycleOf(catalog, plane, (message) => said.push(message));
  let isOver = false;
  const finishing = lifecycle.finishBegun().then(() => {
    isOver = true;
  });
  // Catalog and plane answer within some turns of the event loop.
  for (let turns = 0; turns < 1000 && !(plane.exported.has(good) && plane.exported.has(beside)); turns += 1) {
    await new Promise(setImmediate);
  }
  assert.deepEqual([...plane.exported].sort(), [good, beside].sort());
  await lifecycle.locks.hold([fails, works], async () => undefined);
  assert.equal(await stateOf(catalog, works), 'running');
  assert.equal(await stateOf(catalog, fails), 'pending');
  assert.deepEqual(said, [`${fails} is not as it should be, trying again: its files are damaged`]);
  assert.ok(!isOver, 'nobody has waited for the key');
  key.resolve();
  await finishing;
  assert.ok(plane.exported.has(silent));
  assert.equal(await stateOf(catalog, waits), 'running');

  // The next time only what is missing is asked for.
  plane.asked.length = 0;
  plane.answer = async () => undefined;
  await lifecycle.finishBegun();
  assert.deepEqual([...plane.asked].sort(), [broken, beside].sort());
  assert.equal(await stateOf(catalog, fails), 'running');
  await catalog.destroy();
});

test('volumes are made together, and removed together; one that fails keeps no other from its end', async (t) => {
  const catalog = await openCatalog(`${temporaryDirectory(t)}/catalog.sqlite`);
  const ids = await Promise.all([1, 2, 3, 4].map(() => insertVolume(catalog)));
  const [attached, loose, broken, owed] = ids;
  await insertInstance(catalog, 'running', [attached]);
  await insertSnapshot(catalog, { volume_id: owed, boundary: asEpoch(2) });
  await catalog.updateTable('volumes').set({ state: 'creating' }).execute();
  const states = async (): Promise<Record<string, string>> => {
    const rows = await catalog.selectFrom('volumes').select(['volume_id', 'state']).execute();
    return Object.fromEntries(rows.map((row) => [row.volume_id, row.state]));
  };
  const plane = new Plane();
  const { volumes } = lifecycleOf(catalog, plane);
  plane.answer = async (volumeId) => {
    if (volumeId === broken) throw new Error('the disk is full');
  };
  await assert.rejects(volumes.create(ids), { message: 'the disk is full' });
  assert.deepEqual([...new Set(Object.values(await states()))], ['creating'], 'some are not as the rest');
  plane.answer = async () => undefined;
  await volumes.create(ids);
  assert.deepEqual(plane.made, new Set(ids));
  const idle = { [loose]: 'available', [broken]: 'available', [owed]: 'available' };
  assert.deepEqual(await states(), { [attached]: 'in-use', ...idle });

  await catalog.updateTable('volumes').set({ state: 'deleting' }).where('volume_id', '!=', attached).execute();
  plane.answer = async (volumeId) => {
    if (volumeId === broken) throw new Error('the disk is away');
  };
  await assert.rejects(volumes.reap(ids), { message: 'the disk is away' });
  assert.deepEqual(plane.made, new Set([attached, broken, owed]));
  assert.deepEqual(await states(), { [attached]: 'in-use', [broken]: 'deleting', [owed]: 'deleting' });
  await catalog.destroy();
});

test('a modification that waits for keys, or for a worker, goes on when they are back; one that fails, has failed', async (t) => {
  const catalog = await openCatalog(`${temporaryDirectory(t)}/catalog.sqlite`);
  const [keyless, broken] = await Promise.all([1, 2].map(() => insertVolume(catalog)));
  const shape = { original_type: 'gp3', original_iops: null, original_throughput: null, original_size_gib: 1 } as const;
  const target = { target_type: 'gp3', target_iops: null, target_throughput: null, target_size_gib: 3 } as const;
  for (const volume_id of [keyless, broken]) {
    const begun = { state: 'modifying', message: '', started_at: new Date(0).toISOString(), ended_at: null } as const;
    await catalog
      .insertInto('volume_modifications')
      .values({ volume_id, ...begun, ...shape, ...target })
      .execute();
  }
  const states = async (): Promise<Record<string, string>> => {
    const rows = await catalog.selectFrom('volume_modifications').select(['volume_id', 'state']).execute();
    return Object.fromEntries(rows.map((row) => [row.volume_id, row.state]));
  };
  const plane = new Plane();
  const lifecycle = lifecycleOf(catalog, plane);
  plane.answer = async (volumeId) => {
    throw volumeId === broken ? new Error('the disk is full') : new KeysUnavailableError('the keys cannot be reached');
  };
  await lifecycle.finishBegun();
  assert.deepEqual(await states(), { [keyless]: 'modifying', [broken]: 'failed' });
  plane.answer = async () => {
    throw new WorkerDiedError('it has died');
  };
  await lifecycle.finishBegun();
  assert.deepEqual(await states(), { [keyless]: 'modifying', [broken]: 'failed' });
  plane.answer = async () => undefined;
  await lifecycle.finishBegun();
  assert.deepEqual(await states(), { [keyless]: 'completed', [broken]: 'failed' });
  assert.deepEqual([...plane.grown], [[keyless, 3 * GIB]]);
  await catalog.updateTable('volumes').set({ state: 'deleting' }).execute();
  await lifecycle.finishBegun();
  assert.deepEqual(await states(), {}, 'of volumes that are no more');
  await catalog.destroy();
});
