import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { BlockFetches, newFetchRoom } from '../../src/dataplane/block-fetches.ts';
import { type Fetcher, HydrationSource } from '../../src/dataplane/hydration-source.ts';
import type { FetchMethods } from '../../src/dataplane/messages.ts';
import { SnapshotSource } from '../../src/snapshots/snapshot-source.ts';
import { asBlock, BLOCK_BYTES, type Sha256 } from '../../src/types/units.ts';
import { cutOf, NO_PATIENCE, run } from '../support/captures.ts';
import { MemoryStore } from '../support/memory-store.ts';

const BLOCKS = 60;

type Restored = { store: MemoryStore; expected: Map<number, Buffer>; open: () => HydrationSource };

/** A snapshot, and volumes that are restored from it by way of one thread's fetches (without the thread). */
async function restored(): Promise<Restored> {
  const store = new MemoryStore();
  const expected = new Map<number, Buffer>();
  for (let block = 0; block < BLOCKS; block += 1) expected.set(block * 3, randomBytes(BLOCK_BYTES));
  const { root } = await run(store, cutOf(expected, [...expected.keys()]), undefined);
  const room = newFetchRoom();
  const fetches = new BlockFetches(room);
  const sourceOf = (of: Sha256): SnapshotSource => SnapshotSource.of(store, of, NO_PATIENCE, undefined);
  const methods: FetchMethods = {
    beginFetch: ({ fetch, source, from }) => fetches.begin(fetch, sourceOf(source.root), from),
    nextBlocks: ({ fetch }) => fetches.next(fetch),
    writtenBlocks: ({ fetch, slots }) => fetches.written(fetch, slots),
    endFetch: ({ fetch }) => fetches.end(fetch),
    storeFigures: () => assert.fail('no one asks'),
  };
  // In the order in which they are sent, and later, as between threads.
  const peer = {
    call: async (name: keyof FetchMethods, argument: unknown) => {
      await sleep(1);
      return (methods[name] as (given: unknown) => unknown)(argument);
    },
    tell: (name: keyof FetchMethods, argument: unknown) =>
      void sleep(1).then(() => (methods[name] as (given: unknown) => unknown)(argument)),
  } as Fetcher['peer'];
  const fetcher = { peer, room };
  return {
    store,
    expected,
    open: () => new HydrationSource(sourceOf(root), { root, key: undefined }, () => fetcher),
  };
}

async function readAll(source: HydrationSource, from = 0): Promise<Map<number, Buffer>> {
  const found = new Map<number, Buffer>();
  for await (const { block, bytes } of source.blocks(asBlock(from))) {
    await sleep(0);
    found.set(block, Buffer.from(bytes));
  }
  return found;
}

function assertBlocks(found: ReadonlyMap<number, Buffer>, expected: ReadonlyMap<number, Buffer>): void {
  assert.deepEqual([...found.keys()], [...expected.keys()]);
  for (const [block, bytes] of expected) assert.ok(found.get(block)?.equals(bytes), `block ${block}`);
}

test('four volumes at once are read whole, each in order, in memory for two', async () => {
  const { expected, open } = await restored();
  for (const found of await Promise.all(Array.from({ length: 4 }, () => readAll(open()))))
    assertBlocks(found, expected);
  const rest = new Map([...expected].filter(([block]) => block >= 100));
  assertBlocks(await readAll(open(), 100), rest);
});

test('who stops early, however often, leaves no memory taken', { timeout: 30_000 }, async () => {
  const { expected, open } = await restored();
  for (let stops = 0; stops < 20; stops += 1) {
    let left = 1 + (stops % 9);
    for await (const { block, bytes } of open().blocks(asBlock(0))) {
      assert.ok(expected.get(block)?.equals(bytes));
      left -= 1;
      if (left === 0) break;
    }
  }
  assertBlocks(await readAll(open()), expected);
});

test('what the store refuses is told, and the next attempt has all of the memory', { timeout: 30_000 }, async () => {
  const { store, expected, open } = await restored();
  let gets = 0;
  store.beforeRequest = (_, key) => {
    gets += 1;
    if (key.startsWith('packs/') && gets > 8)
      throw Object.assign(new Error('the store is away'), { code: 'ECONNRESET' });
  };
  for (let attempt = 0; attempt < 10; attempt += 1) {
    gets = attempt;
    await assert.rejects(readAll(open()), /the store is away/);
  }
  store.beforeRequest = () => undefined;
  assertBlocks(await readAll(open()), expected);
});

test('what a guest waits for does not go through the other thread', async () => {
  const { expected, open } = await restored();
  const source = open();
  assert.ok(expected.get(3)?.equals((await source.read(asBlock(3))) as Buffer));
  assert.equal(await source.read(asBlock(4)), undefined);
});
