import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { DataPlane } from '../../src/dataplane/data-plane.ts';
import { newId, type VolumeId } from '../../src/types/ids.ts';
import { asEpoch } from '../../src/types/units.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';

test('what waits for the end of a hold begins when the writes go on, also where the cut failed', async (t) => {
  const directory = temporaryDirectory(t);
  const volumesDirectory = path.join(directory, 'volumes');
  mkdirSync(volumesDirectory);
  const sizeBytes = 1024 ** 3;
  const volumeIds = [newId('vol'), newId('vol')];
  const dataPlane = new DataPlane({
    settings: {
      volumesDirectory,
      objectStore: `file://${directory}/objects`,
      bootId: 'boot',
      stagingLimitBytes: 1 << 30,
      uploadPatienceMilliseconds: 1000,
    },
    workers: 2,
    openingsOf: async (ids) =>
      ids.map((volumeId) => ({
        volumeId,
        sizeBytes,
        origin: undefined,
        base: asEpoch(0),
        pendingCuts: [],
        key: undefined,
        originKey: undefined,
      })),
    onProgress: () => undefined,
    onCutLost: () => undefined,
    onWorkerBack: () => undefined,
    log: () => undefined,
  });
  t.after(() => dataPlane.stop());
  for (const volumeId of volumeIds) {
    await dataPlane.create({ volumeId, sizeBytes, restored: false, baseless: false, key: undefined });
  }

  /** Makes a cut. @returns whether somebody had to wait meanwhile, and what was known of the cut when he no longer had to */
  async function waitDuring(ids: VolumeId[]): Promise<{ waited: boolean; holds: number; failed: number }> {
    const cut = dataPlane.openingsOf(ids).then((openings) => dataPlane.cut(openings, 10_000));
    let isOver = false;
    const over = cut.then(
      () => {
        isOver = true;
      },
      () => {
        isOver = true;
      },
    );
    let waited = false;
    while (!isOver && !waited) {
      await new Promise(setImmediate);
      let isFree = false;
      const free = dataPlane.afterHold().then(() => {
        isFree = true;
      });
      for (let step = 0; step < 10; step += 1) await Promise.resolve();
      if (isFree) continue;
      waited = true;
      await free;
    }
    const { holdSeconds, failedCuts } = dataPlane.figures;
    const known = { waited, holds: holdSeconds.length, failed: failedCuts };
    await over;
    return known;
  }
  assert.deepEqual(await waitDuring(volumeIds), { waited: true, holds: 1, failed: 0 });
  // No volume can be held twice: known only when others are held already.
  assert.deepEqual(await waitDuring([...volumeIds, volumeIds[0]]), { waited: true, holds: 1, failed: 1 });
});
