import type { TestContext } from 'node:test';
import { chooseSeed } from '../support/random.ts';
import { World } from './world.ts';

/** How many seeds are run in all; two files run half of them each, beside each other. */
const SEEDS = Number(process.env.CLEANCUT_SIMULATION_SEEDS ?? 5_000);
const STEPS = 50;

/** Runs half of the seeds. @throws with the seed that failed: CLEANCUT_SEED replays it */
export async function simulateHalf(t: TestContext): Promise<void> {
  const first = chooseSeed();
  const count = process.env.CLEANCUT_SEED === undefined ? SEEDS / 2 : 1;
  const sum: Record<string, number> = {};
  for (let seed = first; seed < first + count; seed += 1) {
    const world = new World(seed);
    await world.run(STEPS).catch((error: Error) => {
      throw new Error(`seed ${seed} (CLEANCUT_SEED=${seed} replays it): ${error.message}`, { cause: error });
    });
    for (const [name, value] of Object.entries(world.figures)) sum[name] = (sum[name] ?? 0) + value;
  }
  t.diagnostic(`${count} seeds from ${first}: ${JSON.stringify(sum)}`);
}
