import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { zstdCompressSync, zstdDecompressSync } from 'node:zlib';
import { compressInto, compressionRoom, compressNow, decompressInto } from '../../src/snapshots/zstd.ts';
import { BLOCK_BYTES, PAGE_BYTES } from '../../src/types/units.ts';
import { chooseSeed, seededRandom } from '../support/random.ts';

function randomOf(t: TestContext): () => number {
  const seed = chooseSeed();
  t.diagnostic(`seed ${seed}`);
  return seededRandom(seed);
}

/** Runs of one byte and of random ones: some compress well, some not at all. */
function bytesOf(random: () => number, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  const share = random();
  for (let at = 0; at < length; ) {
    const run = Math.min(length - at, 1 + Math.floor(random() * 5000));
    if (random() < share) bytes.fill(random() * 256, at, at + run);
    else for (let each = at; each < at + run; each += 1) bytes[each] = random() * 256;
    at += run;
  }
  return bytes;
}

test('what is compressed here node:zlib decompresses, and the other way round', async (t) => {
  const random = randomOf(t);
  for (const length of [1, 100, PAGE_BYTES, 16384, 100_001, BLOCK_BYTES, BLOCK_BYTES]) {
    const bytes = bytesOf(random, length);
    const target = Buffer.alloc(compressionRoom(length));
    const now = Buffer.from(target.subarray(0, compressNow(target, bytes)));
    const later = target.subarray(0, await compressInto(target, bytes));
    assert.ok(now.equals(later));
    assert.ok(zstdDecompressSync(now).equals(bytes));
    const back = Buffer.alloc(length + 10, 0xee);
    assert.equal(await decompressInto(back, now), length);
    assert.ok(back.subarray(0, length).equals(bytes));
    assert.ok(back.subarray(length).every((byte) => byte === 0xee));
    assert.equal(await decompressInto(back, zstdCompressSync(bytes)), length);
    assert.ok(back.subarray(0, length).equals(bytes));
  }
});

test('as many at once as anyone may ask for, and nobody gets what is another’s', async (t) => {
  const random = randomOf(t);
  const all = Array.from({ length: 1000 }, () => bytesOf(random, 1 + Math.floor(random() * 20_000)));
  const there = await Promise.all(
    all.map(async (bytes) => {
      const target = Buffer.alloc(compressionRoom(bytes.length));
      const packed = target.subarray(0, await compressInto(target, bytes));
      const back = Buffer.alloc(bytes.length);
      assert.equal(await decompressInto(back, packed), bytes.length);
      return back;
    }),
  );
  for (const [index, bytes] of there.entries()) assert.ok(bytes.equals(all[index]));
});

test('what is no whole frame, or does not fit, is refused and nothing beyond the target is touched', async (t) => {
  const random = randomOf(t);
  const bytes = bytesOf(random, 50_000);
  const packed = zstdCompressSync(bytes);
  const memory = Buffer.alloc(bytes.length + 100, 0xee);
  const short = memory.subarray(0, bytes.length - 1);
  await assert.rejects(decompressInto(short, packed), /Destination buffer is too small/);
  await assert.rejects(decompressInto(memory, packed.subarray(0, packed.length - 1)), { name: 'ZstdError' });
  await assert.rejects(decompressInto(memory, Buffer.from('no frame at all')), /Unknown frame descriptor/);
  assert.throws(() => compressNow(Buffer.alloc(10), bytes), { name: 'ZstdError' });
  await assert.rejects(compressInto(Buffer.alloc(10), bytes), { name: 'ZstdError' });
  memory.fill(0xee);
  const target = memory.subarray(0, bytes.length);
  for (let round = 0; round < 500; round += 1) {
    const lying = Buffer.from(packed);
    for (let flips = 0; flips < 3; flips += 1) lying[Math.floor(random() * lying.length)] ^= 1 << (random() * 8);
    const found = await decompressInto(target, lying).catch((error: Error) => error);
    assert.ok(found instanceof Error ? found.name === 'ZstdError' : found <= target.length);
    assert.ok(memory.subarray(target.length).every((byte) => byte === 0xee));
  }
  // And a context that has seen them is as good as before.
  assert.equal(await decompressInto(target, packed), bytes.length);
  assert.ok(target.equals(bytes));
});
