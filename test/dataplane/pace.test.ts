import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type GuestLoad, Pace, restAfter } from '../../src/dataplane/pace.ts';

test('uploads rest the longer the busier guests are, and not at all when old pages pile up', async () => {
  let load: GuestLoad = { activeMilliseconds: 0, stagedShare: 0 };
  let busyShare = 0;
  let asked = performance.now();
  const pace = new Pace(async () => {
    // As much as the share says, of all the time since the last question.
    const now = performance.now();
    load = { ...load, activeMilliseconds: load.activeMilliseconds + (now - asked) * busyShare };
    asked = now;
    return load;
  });
  const factorWhen = async (share: number, stagedShare: number): Promise<number> => {
    busyShare = share;
    load = { ...load, stagedShare };
    await new Promise((resolve) => setTimeout(resolve, 20));
    await pace.rest();
    return pace.factor;
  };
  assert.equal(await factorWhen(0, 0), 0);
  assert.equal(await factorWhen(0.02, 0), 0, 'what the uploads themselves ask of it');
  const half = await factorWhen(0.5, 0);
  const whole = await factorWhen(1, 0);
  assert.ok(half > 2 && half < 4 && whole > 5 && whole <= 6, `${half} and ${whole}`);
  const pressed = await factorWhen(1, 0.25);
  assert.ok(pressed > 2.5 && pressed <= 3, `${pressed}`);
  assert.equal(await factorWhen(1, 0.5), 0);
  assert.equal(await factorWhen(1, 0.9), 0);
});

test('a rest is as long as the work before it says, and bounded', async () => {
  assert.equal(restAfter(5, 0), 0);
  assert.equal(restAfter(5, 6), 30);
  assert.equal(restAfter(1000, 6), 200);
  const load = { activeMilliseconds: 0, stagedShare: 0 };
  const pace = new Pace(async () => {
    load.activeMilliseconds += 1_000_000;
    return load;
  });
  // Ten milliseconds of the processor, however busy the machine is.
  for (const before = process.threadCpuUsage(); process.threadCpuUsage(before).user < 10_000; );
  const begun = performance.now();
  // Several captures that ask at once rest once.
  await Promise.all([pace.rest(), pace.rest(), pace.rest()]);
  const rested = performance.now() - begun;
  assert.ok(rested >= 25, `after 10 ms of work it rested ${rested} ms`);
});
