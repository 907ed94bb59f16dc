import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Planted, World } from './world.ts';

test('one seed is one run', async () => {
  const run = async (): Promise<object> => {
    const world = new World(7);
    await world.run(150);
    return world.figures;
  };
  assert.deepEqual(await run(), await run());
});

/** Each must be found, or the simulation is not to be believed. */
const MISTAKES: [string, Planted][] = [
  ['a flush that does not sync the data', { skipSync: /data\.00$/ }],
  ['a flush that does not sync the marks of restored blocks', { skipSync: /hydrated\.synced$/ }],
  ['old pages that are not saved', { skipWrite: /\.staging$/ }],
  ['dirty bits that are not written', { skipWrite: /\.dirty$/ }],
  ['a state that is not synced', { skipSync: /volume\.json$/ }],
  ['a refused sync of which no note is left', { skipReplace: /"bootId": "none"/ }],
  ['old pages that were given up and are there again after a kill', { skipRemove: /\.staging$/ }],
  ['refused bytes of which nobody is told', { hideRefusals: true }],
  ['a snapshot that is complete though its old pages were refused', { unconfirmed: true }],
  ['pages that were written and are not captured', { forgetPages: true }],
  ['packs that are named before they are stored', { packsLate: true }],
  ['a collection that forgets what pending snapshots and bases need', { collectWithoutPending: true }],
  ['a collection that takes what only journals name', { collectDespiteJournals: true }],
  ['a collection that removes what was stored since it looked', { collectWithoutSecondLook: true }],
];
for (const [what, planted] of MISTAKES) {
  test(`the simulation finds ${what}`, async (t) => {
    for (let seed = 1; seed <= 400; seed += 1) {
      const found = await new World(seed, planted).run(150).then(
        () => undefined,
        (error: Error) => error,
      );
      if (found === undefined) continue;
      t.diagnostic(`seed ${seed}: ${found.message.split('\n')[0]}`);
      return;
    }
    assert.fail(`400 seeds did not find ${what}`);
  });
}
