import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type GuestLoad, Pace, restAfter } from '../../src/dataplane/pace.ts';
import { monotonicMilliseconds } from '../../src/types/monotonic.ts';

const MINUTE = 60_000;

test('uploads rest the longer busier guests are, less when they are old, and not at all when old pages pile up', async () => {
  let load: GuestLoad = { at: 0, requests: 0, activeMilliseconds: 0, stagedShare: 0 };
  let now = 0;
  let neighbours = 0;
  const pace = new Pace(
    async () => load,
    () => neighbours,
    0,
  );
  /** After so many milliseconds, of which the worker was busy for such a share. */
  const factorAfter = async (
    milliseconds: number,
    busyShare: number,
    stagedShare: number,
    age: number = 0,
    requests: number = 1,
  ): Promise<number> => {
    now += milliseconds;
    const activeMilliseconds = load.activeMilliseconds + milliseconds * busyShare;
    load = { at: now, requests: load.requests + requests, activeMilliseconds, stagedShare };
    await pace.rest(age);
    return pace.factor;
  };
  assert.equal(await factorAfter(60, 0, 0), 0);
  assert.equal(await factorAfter(60, 0.05, 0), 0, 'what the uploads themselves ask of it');
  assert.equal(await factorAfter(5, 0.2, 0), 0, 'and in some moments more');
  const half = await factorAfter(60, 0.5, 0);
  const whole = await factorAfter(60, 1, 0);
  assert.ok(half > 11 && half < 12 && whole === 38, `${half} and ${whole}`);
  assert.equal(await factorAfter(60, 0.76, 0), 38, 'more than this they cannot be beside an upload');
  const pressed = await factorAfter(60, 1, 0.125);
  assert.ok(pressed > 18 && pressed <= 19, `${pressed}`);
  for (const [minutes, factor] of [
    [5, 38],
    [10, 21],
    [15, 4],
    [60, 4],
  ]) {
    await factorAfter(60, 1, 0, minutes * MINUTE);
    assert.ok(Math.abs(pace.factor - factor) < 0.1, `${pace.factor} after ${minutes} minutes`);
  }
  assert.equal(await factorAfter(60, 1, 0.25), 0);
  assert.equal(await factorAfter(60, 1, 0.9), 0);
  // Guests that come are given way to at once; few of them, within a few batches.
  assert.equal(await factorAfter(60, 0, 0), 0);
  assert.ok((await factorAfter(2, 0.5, 0)) >= 9);
  assert.equal(await factorAfter(60, 0, 0), 0);
  for (let batch = 0; batch < 6; batch += 1) await factorAfter(10, 0.2, 0);
  assert.ok(pace.factor > 0.2, `${pace.factor} after 60 ms`);
  // Without any request it was not for guests that the worker was busy, however much it was.
  for (let batch = 0; batch < 6; batch += 1) await factorAfter(60, 0.9, 0, 0, 0);
  assert.equal(pace.factor, 0);
  // Other workers' guests are guests, too.
  neighbours = 1;
  const beside = await factorAfter(10, 0, 0);
  assert.ok(beside > 26 && beside < 27, `${beside}`);
  neighbours = 0;
  assert.equal(await factorAfter(10, 0, 0), 0);
});

test('what came with another answer is not asked for, and counts once', async () => {
  let asked = 0;
  const pace = new Pace(
    async () => {
      asked += 1;
      return { at: 200, requests: 2, activeMilliseconds: 200, stagedShare: 0 };
    },
    () => 0,
    0,
  );
  pace.note({ at: 100, requests: 1, activeMilliseconds: 0, stagedShare: 0 });
  await pace.rest(0);
  assert.deepEqual([asked, pace.factor], [0, 0]);
  await pace.rest(0);
  assert.deepEqual([asked, pace.factor], [1, 38]);
});

test('what was said a moment ago is not asked for again', async () => {
  let asked = 0;
  const ask = async (): Promise<GuestLoad> => {
    asked += 1;
    return { at: monotonicMilliseconds() + 1000, requests: 0, activeMilliseconds: 0, stagedShare: 0 };
  };
  const pace = new Pace(ask, () => 0, monotonicMilliseconds() - 20);
  await pace.rest(0);
  assert.equal(asked, 1, 'nothing had been said for long');
  await pace.rest(0);
  assert.equal(asked, 1);
});

test('a rest is as long as the work before it says, and bounded', async () => {
  assert.equal(restAfter(5, 0), 0);
  assert.equal(restAfter(5, 6), 30);
  assert.equal(restAfter(1000, 6), 200);
  const load = { at: 0, requests: 0, activeMilliseconds: 0, stagedShare: 0 };
  const pace = new Pace(
    async () => {
      load.at += 1_000_000;
      load.requests += 1;
      load.activeMilliseconds += 1_000_000;
      return load;
    },
    () => 0,
    0,
  );
  // Ten milliseconds of the processor, however busy the machine is.
  for (const before = process.threadCpuUsage(); process.threadCpuUsage(before).user < 10_000; );
  const begun = performance.now();
  // Several captures that ask at once rest once.
  await Promise.all([pace.rest(0), pace.rest(0), pace.rest(0)]);
  const rested = performance.now() - begun;
  assert.ok(rested >= 25, `after 10 ms of work it rested ${rested} ms`);
});
