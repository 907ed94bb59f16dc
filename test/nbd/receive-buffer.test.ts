import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { ReceiveBuffer } from '../../src/nbd/receive-buffer.ts';
import { addressOf } from '../../src/types/address.ts';
import { chooseSeed, seededRandom } from '../support/random.ts';

const MIB = 1024 * 1024;
const seed = chooseSeed();

test('requests of all sizes come out as they went in, and the room is where it is said to be', (t) => {
  t.diagnostic(`seed ${seed}`);
  const random = seededRandom(seed);
  const incoming = new ReceiveBuffer();
  const sizes = [28, 4096, 100_000, MIB, MIB + 28, 2 * MIB, 3 * MIB + 1, 4 * MIB, 4 * MIB + 28, 9 * MIB];
  for (let round = 0; round < 60; round += 1) {
    const request = randomBytes(sizes[Math.floor(random() * sizes.length)]);
    const next = randomBytes(Math.floor(random() * 5000));
    const sent = Buffer.concat([request, next]);
    let done = 0;
    /** As the kernel gives it: some at a time, as much as there is room for. */
    const receiveUntil = (length: number): void => {
      while (incoming.length < length) {
        incoming.makeRoom(length);
        const bytes = Math.min(1 + Math.floor(random() * 300_000), incoming.roomBytes, sent.length - done);
        const at = incoming.roomAddress - addressOf(incoming.bytes);
        assert.equal(at, incoming.start + incoming.length);
        sent.copy(incoming.bytes, at, done, done + bytes);
        incoming.added(bytes);
        done += bytes;
        // As a look for idle connections does: it may come at any time.
        if (random() < 0.2) incoming.empty();
      }
    };
    const taken = (length: number): Buffer => incoming.bytes.subarray(incoming.start, incoming.start + length);
    receiveUntil(request.length);
    assert.ok(taken(request.length).equals(request));
    incoming.consume(request.length);
    incoming.makeRoom(incoming.length + 1);
    receiveUntil(next.length);
    assert.ok(taken(next.length).equals(next));
    incoming.consume(next.length);
  }
});

test('a connection keeps a buffer for requests of up to 4 MiB, and none for larger ones', () => {
  const incoming = new ReceiveBuffer();
  const sizeAfter = (length: number): number => {
    incoming.makeRoom(length);
    incoming.added(length);
    incoming.consume(length);
    return incoming.bytes.length;
  };
  assert.equal(sizeAfter(100), MIB);
  assert.equal(sizeAfter(MIB + 28), MIB + MIB / 4);
  const kept = incoming.bytes;
  assert.equal(sizeAfter(MIB + 5000), MIB + MIB / 4);
  assert.equal(incoming.bytes, kept, 'the same one');
  assert.equal(sizeAfter(32 * MIB), MIB + MIB / 4);
  assert.equal(sizeAfter(4 * MIB), 4 * MIB);
  assert.equal(sizeAfter(4 * MIB + 1), 4 * MIB);
});
