import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { SnapshotSource } from '../../src/snapshots/snapshot-source.ts';
import { giveBack } from '../../src/types/memory.ts';
import { PAGE_MASK_BYTES, type PageMask } from '../../src/types/page-mask.ts';
import { asBlock, BLOCK_BYTES, PAGE_BYTES, type Sha256 } from '../../src/types/units.ts';
import { cutOf, NO_PATIENCE, run } from '../support/captures.ts';
import { MemoryStore } from '../support/memory-store.ts';

const BLOCKS = 8;
const BLOCKS_BEYOND_CACHE = 40;

/** Blocks, some of which can be compressed; then one page of each is written anew. */
async function patchedSnapshot(
  count = BLOCKS,
): Promise<{ store: MemoryStore; root: Sha256; expected: Map<number, Buffer> }> {
  const store = new MemoryStore();
  const blocks = new Map<number, Buffer>();
  for (let block = 0; block < count; block += 1) {
    blocks.set(block, block % 2 === 0 ? randomBytes(BLOCK_BYTES) : Buffer.alloc(BLOCK_BYTES, `text ${block} `));
  }
  const { root: base } = await run(store, cutOf(blocks, [...blocks.keys()]), undefined);
  const written = new Map<number, PageMask>();
  for (const [block, bytes] of blocks) {
    randomBytes(PAGE_BYTES).copy(bytes, block * PAGE_BYTES);
    const mask = new Uint8Array(PAGE_MASK_BYTES);
    mask[block >> 3] = 1 << (block & 7);
    written.set(block, mask);
  }
  const { root } = await run(store, cutOf(blocks, [...blocks.keys()], false, written), base);
  return { store, root, expected: blocks };
}

for (const [runBlocks, requests] of [
  [4, 4],
  [8, 2],
]) {
  test(`blocks and patches that lie side by side are fetched together: ${runBlocks} blocks at a time`, async () => {
    const { store, root, expected } = await patchedSnapshot();
    let packs = 0;
    store.beforeRequest = (_, key) => {
      packs += Number(key.startsWith('packs/'));
    };
    let found = 0;
    const source = SnapshotSource.of(store, root, NO_PATIENCE, undefined);
    for await (const { block, bytes } of source.blocks(asBlock(0), { runBlocks, blocksAtOnce: 2 * runBlocks })) {
      assert.ok(expected.get(block)?.equals(bytes), `block ${block}`);
      found += 1;
    }
    assert.equal(found, BLOCKS);
    assert.equal(packs, requests);
  });
}

/** Each part of an object is wrong when it is asked for the first time. */
class LyingOnce extends MemoryStore {
  readonly #told = new Set<string>();

  override async getRange(key: string, offset: number, length: number): Promise<Buffer> {
    const bytes = await super.getRange(key, offset, length);
    const asked = `${key} ${offset}`;
    if (!this.#told.has(asked)) bytes[bytes.length - 1] ^= 1;
    this.#told.add(asked);
    return bytes;
  }
}

test('blocks are left where they are wanted, those that are patched too, and right at last where a store lies', async () => {
  const { store, root, expected } = await patchedSnapshot();
  const lying = new LyingOnce();
  for (const [key, bytes] of store.objects) lying.objects.set(key, bytes);
  const source = SnapshotSource.of(lying, root, { ...NO_PATIENCE, milliseconds: 60_000 }, undefined);
  const rooms = new Map<number, Buffer>();
  const roomOf = (block: number): Buffer => {
    assert.ok(!rooms.has(block), `a second room for block ${block}`);
    const room = Buffer.alloc(BLOCK_BYTES, 0xff);
    rooms.set(block, room);
    return room;
  };
  for await (const { block, bytes } of source.blocks(asBlock(0), { runBlocks: 4, blocksAtOnce: 8 }, roomOf)) {
    assert.equal(bytes, rooms.get(block));
    assert.ok(expected.get(block)?.equals(bytes), `block ${block}`);
  }
  assert.equal(rooms.size, BLOCKS);
  const again = SnapshotSource.of(lying, root, { ...NO_PATIENCE, milliseconds: 60_000 }, undefined);
  const target = Buffer.alloc(3 * BLOCK_BYTES, 0xff);
  await again.readInto([asBlock(1), asBlock(2), asBlock(1000)], target);
  for (const [at, block] of [1, 2].entries()) {
    assert.ok(expected.get(block)?.equals(target.subarray(at * BLOCK_BYTES, (at + 1) * BLOCK_BYTES)), `block ${block}`);
  }
  assert.ok(target.subarray(2 * BLOCK_BYTES).every((byte) => byte === 0));
});

test('a run of blocks gives its memory back, and nothing that others use', async () => {
  const { store, root, expected } = await patchedSnapshot();
  const source = SnapshotSource.of(store, root, NO_PATIENCE, undefined);
  const kept: Buffer[] = [];
  for await (const { bytes } of source.blocks(asBlock(0))) kept.push(bytes);
  for (const bytes of kept) assert.equal(bytes.length, 0);
  // The store's own objects are as they were.
  for (let block = 0; block < BLOCKS; block += 1) {
    assert.ok((await source.read(asBlock(block)))?.equals(expected.get(block) as Buffer));
  }
  const [small, neighbour] = [Buffer.allocUnsafe(100).fill(1), Buffer.allocUnsafe(100).fill(2)];
  assert.equal(small.buffer, neighbour.buffer, 'both lie in the pool');
  giveBack(small);
  assert.ok(neighbour.every((byte) => byte === 2) && neighbour.length === 100);
});

test('a block that is read by itself is there for a turn, however many others are read; then its memory goes', async () => {
  const { store, root, expected } = await patchedSnapshot(BLOCKS_BEYOND_CACHE);
  const source = SnapshotSource.of(store, root, NO_PATIENCE, undefined);
  const came: Buffer[] = [];
  const readers = [...Array(2 * BLOCKS_BEYOND_CACHE).keys()].map(async (reader) => {
    const block = asBlock(reader % BLOCKS_BEYOND_CACHE);
    const bytes = (await source.read(block)) as Buffer;
    assert.ok(bytes.equals(expected.get(block) as Buffer), `block ${block}`);
    came.push(bytes);
  });
  await Promise.all(readers);
  await new Promise(setImmediate);
  await new Promise(setImmediate);
  assert.ok(came.some(({ length }) => length === 0));
  // Those that are kept are whole.
  for (const bytes of came) assert.ok(bytes.length === 0 || bytes.length === BLOCK_BYTES);
  for (let block = 0; block < BLOCKS_BEYOND_CACHE; block += 1) {
    assert.ok((await source.read(asBlock(block)))?.equals(expected.get(block) as Buffer));
  }
  // The store's own objects are as they were.
  const fresh = SnapshotSource.of(store, root, NO_PATIENCE, undefined);
  for (let block = 0; block < BLOCKS_BEYOND_CACHE; block += 1) {
    assert.ok((await fresh.read(asBlock(block)))?.equals(expected.get(block) as Buffer));
  }
});
