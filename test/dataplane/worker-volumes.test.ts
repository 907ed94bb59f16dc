import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { type TestContext, test } from 'node:test';
import type { VolumeOpening } from '../../src/dataplane/messages.ts';
import { WorkerVolumes } from '../../src/dataplane/worker-volumes.ts';
import { newId } from '../../src/types/ids.ts';
import { asEpoch, GIB } from '../../src/types/units.ts';
import type { Disk } from '../../src/volumes/disk.ts';
import { LocalEngine } from '../../src/volumes/local-engine.ts';
import { NodeDisk } from '../../src/volumes/node-disk.ts';
import { NO_PATIENCE } from '../support/captures.ts';
import { CrashDisk } from '../support/crash-disk.ts';
import { MemoryStore } from '../support/memory-store.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';

/** Takes its time to remove a volume's files: they are whole until `go`. */
class SlowRemovals extends NodeDisk {
  readonly go = Promise.withResolvers<void>();
  override async removeLargeTree(directory: string): Promise<void> {
    await this.go.promise;
    await super.removeLargeTree(directory);
  }
}

/** Takes its time to make the names in a directory durable. */
class SlowDirectories extends NodeDisk {
  go = Promise.withResolvers<void>();
  constructor() {
    super();
    this.go.resolve();
  }
  override async syncDirectory(directory: string): Promise<void> {
    await this.go.promise;
    await super.syncDirectory(directory);
  }
}

async function volumesOn(
  t: TestContext,
  disk: Disk,
): Promise<{ engine: LocalEngine; volumes: WorkerVolumes; opening: VolumeOpening }> {
  const engine = new LocalEngine({
    disk,
    directory: temporaryDirectory(t),
    bootId: 'boot',
    stagingLimitBytes: GIB,
    onCutLost: () => undefined,
    onFault: () => undefined,
    startTimer: () => () => undefined,
  });
  const volumes = new WorkerVolumes(engine, disk, new MemoryStore(), NO_PATIENCE, () =>
    assert.fail('nothing is hydrated'),
  );
  const volumeId = newId('vol');
  await engine.create({ volumeId, sizeBytes: GIB, restored: false, baseless: false, key: undefined });
  const opening = {
    volumeId,
    sizeBytes: GIB,
    origin: undefined,
    key: undefined,
    originKey: undefined,
    base: asEpoch(1),
    pendingCuts: [],
  };
  return { engine, volumes, opening };
}

test('a volume that is being removed is opened by no one, and nothing of it stays open', async (t) => {
  const disk = new SlowRemovals();
  const { engine, volumes, opening } = await volumesOn(t, disk);
  const { volumeId } = opening;
  await volumes.claim(opening);
  const removing = volumes.remove(volumeId);
  await assert.rejects(volumes.claim(opening), /is being removed/);
  disk.go.resolve();
  await removing;
  await assert.rejects(volumes.claim(opening));
  assert.deepEqual([...volumes.all()], []);
  assert.equal(existsSync(engine.directoryOf(volumeId)), false);
});

test('a volume that is removed while it is being made is made to the end first, and nothing of it stays', async (t) => {
  const disk = new SlowDirectories();
  const { engine, volumes } = await volumesOn(t, disk);
  const volumeId = newId('vol');
  disk.go = Promise.withResolvers<void>();
  const making = volumes.create({ volumeId, sizeBytes: GIB, restored: true, baseless: false, key: undefined });
  await new Promise(setImmediate);
  assert.ok(existsSync(engine.directoryOf(volumeId)), 'its making has begun');
  const removing = volumes.remove(volumeId);
  disk.go.resolve();
  await making;
  await removing;
  assert.equal(existsSync(engine.directoryOf(volumeId)), false);
});

test('one that has refused a sync is opened anew for the next client, though an upload has not let go of it yet', async (t) => {
  const disk = new CrashDisk();
  const { volumes, opening } = await volumesOn(t, disk);
  const use = await volumes.use(opening, (claimed) => Object.assign(claimed, { exported: true }));
  use.pendingCuts.add(asEpoch(2));
  use.volume.write([Buffer.alloc(4096, 1)], 4096, 0);
  disk.failSync = () => new Error('EIO');
  await assert.rejects(use.volume.flush(), /EIO/);
  disk.failSync = () => undefined;
  assert.equal(await volumes.use(opening, (claimed) => claimed), use, 'its client is there still');
  use.exported = false;
  await volumes.closeIfIdle(opening.volumeId);
  const next = await volumes.claim(opening);
  assert.equal(next.volume.fault, undefined);
  next.volume.write([Buffer.alloc(4096, 2)], 4096, 0);
  await next.volume.flush();
  await volumes.close(opening.volumeId);
});

test('a volume that is claimed while another lets go of it stays open', async (t) => {
  const { volumes, opening } = await volumesOn(t, new CrashDisk());
  // Each turn of the event loop apart from the next: in one of them the one lets go just as the other has found it open.
  for (let turns = 0; turns < 12; turns += 1) {
    await volumes.claim(opening);
    const releasing = (async () => {
      for (let turn = 0; turn < turns; turn += 1) await undefined;
      await volumes.release(opening.volumeId);
    })();
    const use = await volumes.claim(opening);
    await releasing;
    use.volume.write([Buffer.alloc(4096, 1)], 4096, 0);
    await volumes.release(opening.volumeId);
    assert.deepEqual([...volumes.all()], []);
  }
});
