import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { giveBack, roomFor } from '../../src/types/memory.ts';
import { MIB } from '../../src/types/units.ts';

test('a room that was given back is used again, and who still looks at it finds nothing', () => {
  const first = roomFor(2 * MIB).fill(7);
  giveBack(first);
  assert.equal(first.length, 0);
  const second = roomFor(2 * MIB - 100);
  assert.equal(second.length, 2 * MIB - 100);
  // The memory of the first, and no other.
  assert.ok(second.equals(Buffer.alloc(second.length, 7)));
  giveBack(second);
});

test('a buffer as large as the pool is given back, and again without harm; what lies in the pool stays', () => {
  const own = Buffer.allocUnsafeSlow(Buffer.poolSize);
  const sameMemory = own.subarray(0);
  giveBack(own);
  assert.equal(own.length, 0);
  giveBack(sameMemory);
  const pooled = Buffer.allocUnsafe(100).fill(7);
  assert.equal(pooled.buffer.byteLength, Buffer.poolSize, 'it lies in the pool');
  giveBack(pooled);
  assert.ok(pooled.equals(Buffer.alloc(100, 7)));
});

test('two views of one room are given back once', () => {
  const room = roomFor(MIB);
  const part = room.subarray(10, 20);
  giveBack(room);
  giveBack(part);
  const [one, other] = [roomFor(MIB), roomFor(MIB)];
  assert.notEqual(one.buffer, other.buffer);
  giveBack(one);
  giveBack(other);
});

test('a large room is not kept for small ones, and none is kept for long', async () => {
  giveBack(roomFor(8 * MIB));
  const small = roomFor(MIB);
  assert.ok(small.buffer.byteLength <= 2 * MIB);
  giveBack(small);
  const before = process.memoryUsage().arrayBuffers;
  await setTimeout(1500);
  assert.ok(process.memoryUsage().arrayBuffers <= before - 8 * MIB);
});

test('what was not made as a room is freed at once', () => {
  const before = process.memoryUsage().arrayBuffers;
  const other = Buffer.allocUnsafeSlow(4 * MIB);
  giveBack(other);
  assert.equal(other.length, 0);
  assert.ok(process.memoryUsage().arrayBuffers < before + MIB);
});
