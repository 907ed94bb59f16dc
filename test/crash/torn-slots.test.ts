import assert from 'node:assert/strict';
import { test } from 'node:test';
import { checkWithin, readSlot } from '../support/numbered-slots.ts';

/** Slot 1 begins 512 bytes into a page: its second page has its last 512 bytes. */
const SLOT = 1;
const FIRST_PAGE_BYTES = 3584;

function slotOf(first: number, second: number, from = FIRST_PAGE_BYTES): Buffer {
  const bytes = Buffer.alloc(4096);
  for (let at = 0; at < bytes.length; at += 8) bytes.writeDoubleLE(at < from ? first : second, at);
  return bytes;
}

test('the checker takes a write without an answer that ends between two pages, and no other torn one', () => {
  const unanswered = (slot: number, number: number): boolean => slot === SLOT && number === 8;
  const read = (bytes: Buffer) => readSlot(bytes, SLOT, unanswered, 'slot');
  assert.deepEqual(read(slotOf(7, 7)), { oldest: 7, newest: 7 });
  assert.deepEqual(read(slotOf(8, 7)), { oldest: 7, newest: 8 });
  assert.throws(() => read(slotOf(9, 7)), /is torn: 9, then 7/, 'it had an answer');
  assert.throws(() => read(slotOf(7, 8)), /is torn: 7, then 8/, 'a write begins at its beginning');
  assert.throws(() => read(slotOf(8, 7, FIRST_PAGE_BYTES - 512)), /torn within a page/);
  // And half a write is not the whole of an older one that had an answer.
  checkWithin([{ oldest: 7, newest: 8 }], [7], [8], 'slot');
  assert.throws(() => checkWithin([{ oldest: 6, newest: 8 }], [7], [8], 'slot'), /6 to 8 is not in/);
  assert.throws(() => checkWithin([{ oldest: 7, newest: 9 }], [7], [8], 'slot'), /7 to 9 is not in/);
});
