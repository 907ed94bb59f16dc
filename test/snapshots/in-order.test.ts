import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { inOrder } from '../../src/types/in-order.ts';

const NUMBERS = Array.from({ length: 50 }, (_, index) => index);

/** Does tasks that end in any order, and knows how much was under way at once. */
function tasks() {
  const seen = { now: 0, most: 0, begun: 0 };
  const double = async (number: number): Promise<number> => {
    seen.begun += 1;
    seen.now += 1;
    seen.most = Math.max(seen.most, seen.now);
    await sleep((number * 7) % 11);
    seen.now -= 1;
    return 2 * number;
  };
  return { seen, double };
}

test('results come in the order of the items, and no more is under way than there is room for', async () => {
  for (const [weigh, most] of [
    [() => 1, 8],
    [() => 4, 2],
    [() => 100, 1],
  ] as const) {
    const { seen, double } = tasks();
    const results = await Array.fromAsync(inOrder(NUMBERS, 8, double, weigh));
    assert.deepEqual(
      results,
      NUMBERS.map((number) => 2 * number),
    );
    assert.equal(seen.most, most);
  }
});

test('a failure comes in its turn: of a task, or of the items themselves', async () => {
  const { double } = tasks();
  const taken: number[] = [];
  const failing = async (number: number): Promise<number> => {
    if (number === 20) throw new Error('no 20');
    return double(number);
  };
  await assert.rejects(async () => {
    for await (const result of inOrder(NUMBERS, 8, failing)) taken.push(result);
  }, /no 20/);
  assert.equal(taken.length, 20);
  const broken = function* (): Generator<number> {
    yield* NUMBERS;
    throw new Error('no more');
  };
  taken.length = 0;
  await assert.rejects(async () => {
    for await (const result of inOrder(broken(), 8, double)) taken.push(result);
  }, /no more/);
  assert.equal(taken.length, NUMBERS.length);
});

test('who stops early closes the source of the items', async () => {
  const { seen, double } = tasks();
  let closed = false;
  const source = async function* (): AsyncGenerator<number> {
    try {
      yield* NUMBERS;
    } finally {
      closed = true;
    }
  };
  for await (const result of inOrder(source(), 8, double)) if (result === 10) break;
  assert.ok(closed);
  assert.ok(seen.begun < 20, `${seen.begun} begun`);
});
