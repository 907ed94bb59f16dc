import assert from 'node:assert/strict';
import { mkdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { CutFailedError, DataPlane } from '../../src/dataplane/data-plane.ts';
import { newId, type VolumeId } from '../../src/types/ids.ts';
import { asEpoch } from '../../src/types/units.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';

type Plane = { dataPlane: DataPlane; volumeIds: VolumeId[] };

/** Two workers, with a volume each. */
async function startPlane(t: TestContext): Promise<Plane> {
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
  return { dataPlane, volumeIds };
}

/** Asked in each turn of the event loop it misses no hold: one begins and ends in different turns. */
async function isHeld(dataPlane: DataPlane): Promise<boolean> {
  let isFree = false;
  void dataPlane.afterHold().then(() => {
    isFree = true;
  });
  for (let step = 0; step < 10; step += 1) await Promise.resolve();
  return !isFree;
}

test('what waits for the end of a hold begins when the writes go on, also where the cut failed', async (t) => {
  const { dataPlane, volumeIds } = await startPlane(t);

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
      waited = await isHeld(dataPlane);
    }
    if (waited) await dataPlane.afterHold();
    const { holdSeconds, failedCuts } = dataPlane.figures;
    const known = { waited, holds: holdSeconds.length, failed: failedCuts };
    await over;
    return known;
  }
  assert.deepEqual(await waitDuring(volumeIds), { waited: true, holds: 1, failed: 0 });
  // No volume can be held twice: known only when others are held already.
  assert.deepEqual(await waitDuring([...volumeIds, volumeIds[0]]), { waited: true, holds: 1, failed: 1 });
});

test('writes go on while the server’s own thread is busy', async (t) => {
  const BUSY_MILLISECONDS = 3000;
  const { dataPlane, volumeIds } = await startPlane(t);
  const cut = dataPlane.cut(await dataPlane.openingsOf(volumeIds), 30_000);
  let isOver = false;
  cut.finally(() => {
    isOver = true;
  });
  // The orders are on their way when others must wait; from then on this thread hears nothing of the workers.
  while (!isOver && !(await isHeld(dataPlane))) await new Promise(setImmediate);
  assert.equal(isOver, false, 'the hold was not seen');
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, BUSY_MILLISECONDS);
  const { cuts, holdMilliseconds } = await cut;
  assert.equal(cuts.length, 2);
  assert.ok(holdMilliseconds > 0 && holdMilliseconds < BUSY_MILLISECONDS, `held for ${holdMilliseconds} ms`);
});

test('a worker that was begun again has its part in cuts', async (t) => {
  const { dataPlane, volumeIds } = await startPlane(t);
  const cutBoth = async (): Promise<number> =>
    (await dataPlane.cut(await dataPlane.openingsOf(volumeIds), 10_000)).cuts.length;
  assert.equal(await cutBoth(), 2);
  const children = readFileSync(`/proc/${process.pid}/task/${process.pid}/children`, 'utf8').trim().split(' ');
  assert.equal(children.length, 2);
  for (const child of children) {
    process.kill(Number(child), 'SIGKILL');
    await assert.rejects(cutBoth(), CutFailedError);
    await dataPlane.ready();
    const isSilent = async (): Promise<boolean> => (await dataPlane.activity()).silent.length > 0;
    for (let look = 0; look < 200 && (await isSilent()); look += 1)
      await new Promise((resolve) => setTimeout(resolve, 50));
    assert.equal(await cutBoth(), 2);
  }
});

test('wherever the deadline falls, all are cut or none, and nothing is kept for a cut that failed', async (t) => {
  const { dataPlane, volumeIds } = await startPlane(t);
  const ends = { made: 0, failed: 0 };
  for (let cut = 0; cut < 300; cut += 1) {
    try {
      const openings = await dataPlane.openingsOf(volumeIds);
      const { cuts } = await dataPlane.cut(openings, 0.2 + (cut % 4));
      ends.made += 1;
      assert.equal(cuts.length, 2);
      await Promise.all(cuts.map((each) => dataPlane.finishCut(each, true)));
    } catch (error) {
      if (!(error instanceof CutFailedError)) throw error;
      ends.failed += 1;
    }
  }
  t.diagnostic(`${ends.made} cuts made, ${ends.failed} failed`);
  assert.ok(ends.made > 0 && ends.failed > 0, 'the deadlines were before and after the end');
  // A volume is open as long as a cut of it is pending; what was given up late may take a moment.
  const isOpen = async (): Promise<boolean> => (await dataPlane.activity()).volumes.length > 0;
  for (let look = 0; look < 100 && (await isOpen()); look += 1) await new Promise((resolve) => setTimeout(resolve, 50));
  assert.equal(await isOpen(), false, 'a volume is kept open for a cut that failed');
});
