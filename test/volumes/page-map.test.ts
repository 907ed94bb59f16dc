import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PageMap } from '../../src/volumes/page-map.ts';
import { chooseSeed, seededRandom } from '../support/random.ts';

test('a map of pages says what was set last, at every moment of its growth, up to the last page of 64 TiB', (t) => {
  const seed = chooseSeed();
  t.diagnostic(`seed ${seed}`);
  const random = seededRandom(seed);
  const map = new PageMap();
  const model = new Map<number, number>();
  const pages: number[] = [];
  const anyPage = (): number => {
    // Neighbours, pages that share their low halves, and any.
    const near = pages.length > 0 && random() < 0.5 ? pages[Math.floor(random() * pages.length)] : undefined;
    if (near !== undefined) return random() < 0.7 ? near + 1 : (near + 2 ** 32) % 2 ** 34;
    return Math.floor(random() * 2 ** 34);
  };
  for (let step = 0; step < 200_000; step += 1) {
    const page = random() < 0.1 && pages.length > 0 ? pages[Math.floor(random() * pages.length)] : anyPage();
    if (!model.has(page)) pages.push(page);
    map.set(page, step);
    model.set(page, step);
    // What was set at any time, and what may never have been.
    const known = pages[Math.floor(random() * pages.length)];
    assert.equal(map.get(known), model.get(known), `page ${known} at step ${step}`);
    const other = anyPage();
    assert.equal(map.has(other), model.has(other), `page ${other} at step ${step}`);
  }
  for (const [page, value] of model) assert.equal(map.get(page), value, `page ${page}`);
});
