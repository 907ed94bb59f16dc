import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { type Captured, capture } from '../../src/snapshots/capture.ts';
import { Manifest } from '../../src/snapshots/manifest.ts';
import { PackRooms } from '../../src/snapshots/pack-rooms.ts';
import { SnapshotSource } from '../../src/snapshots/snapshot-source.ts';
import { NO_JOURNAL } from '../../src/snapshots/upload-journal.ts';
import { ALL_PAGES } from '../../src/types/page-mask.ts';
import { asBlock, BLOCK_BYTES } from '../../src/types/units.ts';
import { NO_PATIENCE } from '../support/captures.ts';
import { MemoryStore } from '../support/memory-store.ts';

const NEVER = new AbortController().signal;
/** Three packs' worth, every block another. */
const BLOCKS = 80;
const common = randomBytes(BLOCK_BYTES);

function blockOf(volume: number, block: number): Buffer {
  const bytes = Buffer.from(common);
  bytes.writeUInt32LE(volume, 0);
  bytes.writeUInt32LE(block, 4);
  return bytes;
}

function captureVolume(store: MemoryStore, volume: number, rooms: PackRooms, signal = NEVER): Promise<Captured> {
  return capture({
    cut: {
      changed: async (from) => ({
        blocks: Array.from({ length: BLOCKS }, (_, block) => block).filter((block) => block >= from),
        more: false,
        compareAll: false,
      }),
      written: async (blocks) => blocks.map(() => ALL_PAGES),
      async read(pieces, target) {
        for (const [index, { block }] of pieces.entries()) blockOf(volume, block).copy(target, index * BLOCK_BYTES);
        return pieces.map(() => true);
      },
      captured: () => undefined,
    },
    blocks: BLOCKS,
    store,
    base: new Manifest(store, undefined, NO_PATIENCE, undefined),
    journal: NO_JOURNAL,
    patience: NO_PATIENCE,
    onProgress: () => undefined,
    signal,
    rooms,
  });
}

async function assertCaptured(store: MemoryStore, volume: number, { root }: Captured): Promise<void> {
  let found = 0;
  for await (const { block, bytes } of SnapshotSource.of(store, root, NO_PATIENCE, undefined).blocks(asBlock(0))) {
    assert.ok(bytes.equals(blockOf(volume, block)), `volume ${volume}, block ${block}`);
    found += 1;
  }
  assert.equal(found, BLOCKS);
}

test('captures that share few rooms all come to their end, with the bytes of their cuts', async () => {
  const store = new MemoryStore();
  let underWay = 0;
  let most = 0;
  store.beforeRequest = async (request, key) => {
    if (request !== 'put' || !key.startsWith('packs/')) return;
    underWay += 1;
    most = Math.max(most, underWay);
    await new Promise((resolve) => setTimeout(resolve, 5));
    underWay -= 1;
  };
  const alone = new PackRooms(1);
  await assertCaptured(store, 0, await captureVolume(store, 0, alone));
  assert.equal(most, 1, 'with one room, one pack is on its way');
  const shared = new PackRooms(3);
  const captured = await Promise.all([1, 2, 3].map((volume) => captureVolume(store, volume, shared)));
  for (const [index, each] of captured.entries()) await assertCaptured(store, index + 1, each);
  assert.ok(most <= 3);
});

test('a capture that fails gives its rooms up for those that come after it', async () => {
  const store = new MemoryStore();
  const rooms = new PackRooms(2);
  for (let attempt = 0; attempt < 3; attempt += 1) {
    store.beforeRequest = (request) => {
      if (request === 'put') throw new Error('the store is away');
    };
    await assert.rejects(captureVolume(store, 9, rooms), /the store is away/);
  }
  store.beforeRequest = () => undefined;
  await assertCaptured(store, 9, await captureVolume(store, 9, rooms));
});

test('a capture that is no longer wanted does not wait for a room', async () => {
  const rooms = new PackRooms(1);
  const room = await rooms.take(NEVER);
  const abort = new AbortController();
  const capturing = captureVolume(new MemoryStore(), 1, rooms, abort.signal);
  setTimeout(() => abort.abort(new Error('not wanted')), 20);
  await assert.rejects(capturing, /not wanted/);
  // The room goes to who waits, not to who has gone.
  const next = rooms.take(NEVER);
  rooms.give(room);
  assert.equal(await next, room);
  const last = rooms.take(NEVER);
  rooms.forget();
  assert.notEqual(await last, room, 'what may still be read from is no one else’s');
});

test('rooms that nobody has needed for a while take no memory, and are as good as before', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const rooms = new PackRooms(3);
  const taken = await Promise.all([1, 2, 3].map(() => rooms.take(NEVER)));
  for (const room of taken) room.fill(7);
  for (const room of taken) rooms.give(room);
  t.mock.timers.tick(1000);
  const kept = await rooms.take(NEVER);
  t.mock.timers.tick(10_000);
  assert.ok(
    kept.every((byte) => byte === 7),
    'a room that is in use keeps its bytes',
  );
  const before = process.memoryUsage.rss();
  rooms.give(kept);
  t.mock.timers.tick(2000);
  const freed = before - process.memoryUsage.rss();
  const bytes = 3 * kept.length;
  assert.ok(freed > 0.9 * bytes, `${freed} of ${bytes} bytes went back`);
  t.mock.timers.reset();
  const store = new MemoryStore();
  await assertCaptured(store, 4, await captureVolume(store, 4, rooms));
});
