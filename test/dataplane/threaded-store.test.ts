import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { type TestContext, test } from 'node:test';
import { deserialize, serialize } from 'node:v8';
import type { ReadMethods } from '../../src/dataplane/messages.ts';
import { type Channel, RpcPeer } from '../../src/dataplane/rpc.ts';
import { newReadRoom, READ_SLOT_BYTES, SlotReads } from '../../src/dataplane/slot-reads.ts';
import { ThreadedStore } from '../../src/dataplane/threaded-store.ts';
import {
  ObjectNotFoundError,
  type ObjectReader,
  ObjectStoreRefusedError,
  ObjectTooShortError,
} from '../../src/objects/object-store.ts';
import { giveBack } from '../../src/types/memory.ts';
import { BLOCK_BYTES } from '../../src/types/units.ts';
import { MemoryStore } from '../support/memory-store.ts';

/** Two ends that are connected: what is said at one arrives at the other, later, as a copy. */
function connected(): [Channel, Channel] {
  const receivers: Parameters<Channel['onMessages']>[0][] = [];
  const end = (own: number): Channel => ({
    post: (messages) => setImmediate(() => receivers[1 - own](deserialize(serialize(messages)))),
    onMessages: (receive) => {
      receivers[own] = receive;
    },
  });
  return [end(0), end(1)];
}

/** A store that is read as by way of another thread: the same messages, and memory that both see. */
function threaded(store: ObjectReader): ThreadedStore {
  const room = newReadRoom();
  const reads = new SlotReads(store, room);
  const [ownEnd, threadEnd] = connected();
  const methods: ReadMethods = {
    read: (order) => reads.read(order),
    taken: ({ slot }) => reads.taken(slot),
    storeFigures: () => assert.fail('no one asks'),
  };
  new RpcPeer(threadEnd, methods);
  return new ThreadedStore(store.url, new RpcPeer<ReadMethods>(ownEnd, {}), room);
}

async function filled(): Promise<{ store: MemoryStore; bytes: Map<string, Buffer> }> {
  const store = new MemoryStore();
  const bytes = new Map<string, Buffer>();
  for (const length of [0, 1, 4096, BLOCK_BYTES, READ_SLOT_BYTES, READ_SLOT_BYTES + 1, 3 * READ_SLOT_BYTES + 77]) {
    const object = randomBytes(length);
    bytes.set(`objects/${length}`, object);
    await store.put(`objects/${length}`, [object]);
  }
  return { store, bytes };
}

test('what is read by way of another thread is what the store has, whatever its size, and however much is read at once', async () => {
  const { store, bytes } = await filled();
  const reader = threaded(store);
  const reading: Promise<void>[] = [];
  for (let round = 0; round < 20; round += 1) {
    for (const [key, expected] of bytes) {
      const check = async (found: Promise<Buffer>, from: number, length: number): Promise<void> => {
        const got = await found;
        assert.ok(got.equals(expected.subarray(from, from + length)), `${key}, ${length} bytes at ${from}`);
        // As a reader does: what comes next may lie in the same memory.
        giveBack(got);
      };
      reading.push(check(reader.get(key), 0, expected.length));
      const from = Math.floor(expected.length / 3);
      const length = expected.length - from - Math.min(round, expected.length - from);
      if (length > 0) reading.push(check(reader.getRange(key, from, length), from, length));
    }
  }
  await Promise.all(reading);
});

test('a store’s failures are the same by way of another thread, and take no room from those who read later', async () => {
  const { store, bytes } = await filled();
  let refuses = false;
  const reader = threaded({
    url: store.url,
    get: (key) => store.get(key),
    async getRange(key, offset, length) {
      if (refuses) throw new ObjectStoreRefusedError('AccessDenied: no');
      if (length === 5) throw Object.assign(new Error('it hung up'), { code: 'ECONNRESET' });
      return store.getRange(key, offset, length);
    },
  });
  for (let round = 0; round < 40; round += 1) {
    await assert.rejects(reader.get('objects/none'), ObjectNotFoundError);
    await assert.rejects(reader.getRange('objects/none', 0, 3 * READ_SLOT_BYTES), ObjectNotFoundError);
    await assert.rejects(reader.getRange('objects/4096', 4000, 100), ObjectTooShortError);
    await assert.rejects(reader.getRange('objects/4096', 0, 5), { code: 'ECONNRESET', message: 'it hung up' });
  }
  refuses = true;
  await assert.rejects(reader.getRange('objects/4096', 0, 4096), ObjectStoreRefusedError);
  refuses = false;
  assert.ok((await reader.getRange('objects/4096', 0, 4096)).equals(bytes.get('objects/4096') as Buffer));
});

test('reads for which the store says nothing keep no other read from its bytes', async (t: TestContext) => {
  const { store, bytes } = await filled();
  const silence = Promise.withResolvers<void>();
  const reader = threaded({
    url: store.url,
    get: (key) => store.get(key),
    async getRange(key, offset, length) {
      if (offset === 1) await silence.promise;
      return store.getRange(key, offset, length);
    },
  });
  const silent = Array.from({ length: 100 }, () => reader.getRange('objects/4096', 1, 100));
  t.after(() => silence.resolve());
  assert.ok((await reader.get('objects/4096')).equals(bytes.get('objects/4096') as Buffer));
  silence.resolve();
  for (const found of await Promise.all(silent)) {
    assert.ok(found.equals((bytes.get('objects/4096') as Buffer).subarray(1, 101)));
  }
});
