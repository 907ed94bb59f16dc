import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
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
    {
      fetch: async (after, most) => {
        looks += 1;
        return all.filter((row) => row > after).slice(0, most);
      },
      idOf: (row) => row,
    },
    async (rows) => rows,
    () => false,
  );
  isOver = true;
  assert.deepEqual(page, { items: [], nextToken: undefined });
  assert.ok(looks >= 5, `${looks} looks`);
  assert.ok(turns >= looks - 1, `${turns} turns between ${looks} looks`);
});

test('pages have all that matches, in order and once, whatever the database leaves out by itself', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.uniqueArray(fc.integer({ min: 1, max: 999 }), { maxLength: 80 }),
      fc.integer({ min: 1, max: 12 }),
      fc.integer({ min: 1, max: 30 }),
      fc.integer({ min: 1, max: 5 }),
      async (numbers, most, stretch, every) => {
        const all = numbers.map((number) => String(number).padStart(3, '0')).sort();
        const kept = all.filter((row) => Number(row) % every === 0);
        const matching = kept.filter((row) => Number(row) % 2 === 0);
        const found: string[] = [];
        for (let NextToken: string | undefined, pages = 0; pages <= all.length; pages += 1) {
          const page = await fillPage(
            { yield: async () => undefined },
            { MaxResults: most, NextToken },
            { least: 1, most: 100 },
            {
              fetch: async (after, count, until = '999') =>
                kept.filter((row) => row > after && row <= until).slice(0, count),
              idOf: (row) => row,
              stretchEnd: async (after) => all.filter((row) => row > after)[stretch],
            },
            async (rows) => rows,
            (row) => Number(row) % 2 === 0,
          );
          assert.ok(page.items.length <= most);
          found.push(...page.items);
          NextToken = page.nextToken;
          if (NextToken === undefined) break;
        }
        assert.deepEqual(found, matching);
      },
    ),
    { numRuns: 300 },
  );
});
