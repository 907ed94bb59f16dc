import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fillPage } from '../../src/api/pages.ts';

test('where nothing matches, others have a turn between two looks at the rows', async () => {
  const all = Array.from({ length: 1000 }, (_, number) => String(number).padStart(4, '0'));
  let [looks, turns, isOver] = [0, 0, false];
  const turn = (): void => {
    turns += 1;
    if (!isOver) setImmediate(turn);
  };
  setImmediate(turn);
  const page = await fillPage(
    { yield: () => new Promise((resolve) => setImmediate(resolve)) },
    { MaxResults: 100 },
    { least: 1, most: 100 },
    async (after, most) => {
      looks += 1;
      return all.filter((row) => row > after).slice(0, most);
    },
    (row) => row,
    async (rows) => rows,
    () => false,
  );
  isOver = true;
  assert.deepEqual(page, { items: [], nextToken: undefined });
  assert.ok(looks >= 5, `${looks} looks`);
  assert.ok(turns >= looks - 1, `${turns} turns between ${looks} looks`);
});
