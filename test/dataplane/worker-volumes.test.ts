import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { test } from 'node:test';
import { WorkerVolumes } from '../../src/dataplane/worker-volumes.ts';
import { newId } from '../../src/types/ids.ts';
import { asEpoch, GIB } from '../../src/types/units.ts';
import { LocalEngine } from '../../src/volumes/local-engine.ts';
import { NodeDisk } from '../../src/volumes/node-disk.ts';
import { NO_PATIENCE } from '../support/captures.ts';
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

test('a volume that is being removed is opened by no one, and nothing of it stays open', async (t) => {
  const disk = new SlowRemovals();
  const engine = new LocalEngine({
    disk,
    directory: temporaryDirectory(t),
    bootId: 'boot',
    stagingLimitBytes: GIB,
    onCutLost: () => undefined,
    startTimer: () => () => undefined,
  });
  const volumes = new WorkerVolumes(engine, disk, new MemoryStore(), NO_PATIENCE);
  const volumeId = newId('vol');
  engine.create({ volumeId, sizeBytes: GIB, restored: false, baseless: false, key: undefined });
  const opening = {
    volumeId,
    sizeBytes: GIB,
    origin: undefined,
    key: undefined,
    originKey: undefined,
    base: asEpoch(1),
    pendingCuts: [],
  };
  await volumes.open(opening);
  const removing = volumes.remove(volumeId);
  await assert.rejects(volumes.open(opening), /is being removed/);
  disk.go.resolve();
  await removing;
  await assert.rejects(volumes.open(opening));
  assert.deepEqual([...volumes.all()], []);
  assert.equal(existsSync(engine.directoryOf(volumeId)), false);
});
