import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DataPlane } from '../../src/dataplane/data-plane.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';

test('a worker that never comes up is started again after longer and longer pauses', async (t) => {
  const at: number[] = [];
  const enough = Promise.withResolvers<void>();
  const dataPlane = new DataPlane({
    settings: {
      volumesDirectory: temporaryDirectory(t),
      // It ends over this before it answers anything.
      objectStore: 'no such:',
      bootId: 'boot',
      stagingLimitBytes: 1,
      uploadPatienceMilliseconds: 1,
    },
    workers: 1,
    openingsOf: async () => [],
    onProgress: () => undefined,
    onCutLost: () => undefined,
    onWorkerBack: () => undefined,
    log: () => {
      at.push(performance.now());
      if (at.length === 4) enough.resolve();
    },
  });
  t.after(() => dataPlane.stop());
  await assert.rejects(dataPlane.ready(), { name: 'WorkerDiedError' });
  await enough.promise;
  const gaps = at.slice(1).map((each, index) => Math.round(each - at[index]));
  for (const [index, least] of [400, 800, 1600].entries()) assert.ok(gaps[index] >= least - 1, gaps.join(', '));
});
