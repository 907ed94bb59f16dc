import assert from 'node:assert/strict';
import { test } from 'node:test';
import { nextSetInAny, PagedBitmap } from '../../src/volumes/paged-bitmap.ts';
import { chooseSeed, seededRandom } from '../support/random.ts';

/** Two of the map's pages, and a part of a third. */
const LENGTH = 70_001;

test('a bitmap says what a plain set of numbers says, whatever is done to it', (t) => {
  const seed = chooseSeed();
  t.diagnostic(`seed ${seed}`);
  const random = seededRandom(seed);
  const bit = (): number => Math.floor(random() * LENGTH);
  const map = new PagedBitmap(LENGTH);
  const model = new Set<number>();
  for (let step = 0; step < 400; step += 1) {
    const chance = random();
    if (chance < 0.5) {
      const one = bit();
      map.set(one);
      model.add(one);
    } else if (chance < 0.8) {
      const one = random() < 0.5 ? bit() : ([...model][Math.floor(random() * model.size)] ?? 0);
      map.clear(one);
      model.delete(one);
    } else if (chance < 0.9) {
      const from = bit();
      const to = Math.min(LENGTH, from + Math.floor(random() * 20_000));
      map.setRange(from, to);
      for (let each = from; each < to; each += 1) model.add(each);
    }
    const from = bit();
    let [set, clear] = [from, from];
    while (set < LENGTH && !model.has(set)) set += 1;
    while (clear < LENGTH && model.has(clear)) clear += 1;
    assert.equal(map.get(from), model.has(from));
    assert.equal(map.nextSet(from), set === LENGTH ? -1 : set);
    assert.equal(map.nextClear(from), clear);
    assert.equal(map.count(), model.size);
  }
  const copy = new PagedBitmap(LENGTH);
  for (const [number, page] of map.pages()) copy.loadPage(number, page);
  assert.equal(copy.count(), model.size);
  for (const one of model) assert.ok(copy.get(one));
});

test('pages that were saved of a longer map lose what is past the end', () => {
  const page = new Uint8Array(4096).fill(0xff);
  const map = new PagedBitmap(100);
  map.loadPage(0, page);
  map.loadPage(1, page);
  assert.equal(map.count(), 100);
  assert.equal(map.nextSet(99), 99);
  assert.equal(map.nextSet(100), -1);
  assert.equal(nextSetInAny([new PagedBitmap(100), map], 7), 7);
});
