import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { type Captured, type CutReader, capture } from '../../src/snapshots/capture.ts';
import { Manifest } from '../../src/snapshots/manifest.ts';
import { decodeBranch, decodeLeaf, isLeaf, nodeKey } from '../../src/snapshots/manifest-node.ts';
import { packKey, readPackIndex } from '../../src/snapshots/pack.ts';
import { SnapshotSource } from '../../src/snapshots/snapshot-source.ts';
import { type JournalRecord, NO_JOURNAL, type UploadJournal } from '../../src/snapshots/upload-journal.ts';
import { asBlock, BLOCK_BYTES, type Sha256 } from '../../src/types/units.ts';
import { MemoryStore } from '../support/memory-store.ts';
import { chooseSeed, seededRandom } from '../support/random.ts';

const NO_PATIENCE = { milliseconds: 0, now: () => 0, sleep: async () => undefined, random: () => 0 };

/** A cut whose blocks stand in a map; what is not there is zeroes. */
function cutOf(
  blocks: ReadonlyMap<number, Buffer>,
  changed: readonly number[],
  compareAll = false,
): CutReader & { done: Set<number> } {
  const ascending = [...changed].sort((a, b) => a - b);
  const done = new Set<number>();
  return {
    done,
    changed: async (from) => ({ blocks: ascending.filter((block) => block >= from).slice(0, 7), compareAll }),
    async read(asked, target) {
      for (const [index, block] of asked.entries()) {
        const bytes = blocks.get(block);
        const at = index * BLOCK_BYTES;
        if (bytes === undefined) target.fill(0, at, at + BLOCK_BYTES);
        else bytes.copy(target, at);
      }
      return asked.map(() => true);
    },
    captured: (blocks) => {
      for (const block of blocks) done.add(block);
    },
  };
}

function run(
  store: MemoryStore,
  cut: CutReader,
  base: Sha256 | undefined,
  journal: UploadJournal = NO_JOURNAL,
): Promise<Captured> {
  return capture({
    cut,
    blocks: 1_000_000,
    store,
    base: new Manifest(store, base, NO_PATIENCE),
    journal,
    patience: NO_PATIENCE,
    onProgress: () => undefined,
    signal: new AbortController().signal,
  });
}

async function contents(store: MemoryStore, root: Sha256): Promise<Map<number, Buffer>> {
  const found = new Map<number, Buffer>();
  for await (const { block, bytes } of new SnapshotSource(store, root, NO_PATIENCE).blocks(asBlock(0)))
    found.set(block, bytes);
  return found;
}

function assertSame(found: ReadonlyMap<number, Buffer>, expected: ReadonlyMap<number, Buffer>, what: string): void {
  assert.deepEqual(
    [...found.keys()],
    [...expected.keys()].sort((a, b) => a - b),
    what,
  );
  for (const [block, bytes] of expected) assert.ok(found.get(block)?.equals(bytes), `${what}: block ${block}`);
}

function someBlock(random: () => number): Buffer {
  const kind = random();
  if (kind < 0.4) return randomBytes(BLOCK_BYTES);
  return Buffer.alloc(BLOCK_BYTES, `text ${random()} `);
}

test('a lineage of snapshots: each has just the bytes of its cut, whatever was deleted or rewritten between', async (t) => {
  const seed = chooseSeed();
  t.diagnostic(`seed ${seed}`);
  const random = seededRandom(seed);
  const store = new MemoryStore();
  const live = new Map<number, Buffer>();
  // Blocks far apart, so that several leaves and branches are touched.
  const somewhere = (): number => [0, 1, 2, 1023, 1024, 5000, 5001, 700_000, 999_999][Math.floor(random() * 9)] ?? 0;
  const snapshots: { root: Sha256; expected: Map<number, Buffer> }[] = [];
  let base: Sha256 | undefined;
  for (let round = 0; round < 12; round += 1) {
    const changed = new Set<number>();
    for (let write = 0; write < 6; write += 1) {
      const block = somewhere();
      changed.add(block);
      if (random() < 0.25) live.delete(block);
      else live.set(block, someBlock(random));
    }
    const cut = cutOf(live, [...changed]);
    const { root, dataBlocks } = await run(store, cut, base);
    assert.deepEqual([...cut.done].sort(), [...changed].sort(), 'every block is let go');
    assert.equal(dataBlocks, live.size);
    snapshots.push({ root, expected: new Map(live) });
    base = root;
  }
  for (const [index, { root, expected }] of snapshots.entries()) {
    assertSame(await contents(store, root), expected, `seed ${seed} snapshot ${index}`);
  }
});

test('a block rewritten with the bytes it had is not stored again, and an unchanged manifest shares its nodes', async () => {
  const store = new MemoryStore();
  const blocks = new Map([
    [1, randomBytes(BLOCK_BYTES)],
    [200_000, randomBytes(BLOCK_BYTES)],
  ]);
  const first = await run(store, cutOf(blocks, [1, 200_000]), undefined);
  const objects = store.objects.size;
  const second = await run(store, cutOf(blocks, [1, 2, 200_000]), first.root);
  assert.equal(second.storedBytes, 0);
  assert.equal(second.root, first.root);
  assert.equal(store.objects.size, objects);
});

test('two snapshots that differ in one block share every leaf but one', async () => {
  const store = new MemoryStore();
  const blocks = new Map<number, Buffer>();
  for (let leaf = 0; leaf < 10; leaf += 1) blocks.set(leaf * 1024, randomBytes(BLOCK_BYTES));
  const first = await run(store, cutOf(blocks, [...blocks.keys()]), undefined);
  const before = new Set(store.objects.keys());
  blocks.set(4096, randomBytes(BLOCK_BYTES));
  await run(store, cutOf(blocks, [4096]), first.root);
  const added = [...store.objects.keys()].filter((key) => !before.has(key)).map((key) => key.split('/')[0]);
  assert.deepEqual(added.sort(), ['manifests', 'manifests', 'manifests', 'packs']);
});

test('where the dirty bits cannot be trusted, everything is compared, what became zero too', async () => {
  const store = new MemoryStore();
  const blocks = new Map([
    [3, randomBytes(BLOCK_BYTES)],
    [9000, randomBytes(BLOCK_BYTES)],
    [9001, randomBytes(BLOCK_BYTES)],
  ]);
  const first = await run(store, cutOf(blocks, [3, 9000, 9001]), undefined);
  blocks.delete(9000);
  blocks.set(3, randomBytes(BLOCK_BYTES));
  const second = await run(store, cutOf(blocks, [3, 9001], true), first.root);
  assertSame(await contents(store, second.root), blocks, 'second');
  assert.equal(second.storedBlocks, 1);
});

test('a capture that is cut short at any request goes on from its journal, and ends with the same bytes', async (t) => {
  const seed = chooseSeed();
  t.diagnostic(`seed ${seed}`);
  const random = seededRandom(seed);
  const blocks = new Map<number, Buffer>();
  for (let block = 0; block < 100; block += 1) if (random() < 0.8) blocks.set(block * 37, randomBytes(BLOCK_BYTES));
  const changed = Array.from({ length: 100 }, (_, block) => block * 37);
  for (let failAt = 1, wasCut = true; wasCut; failAt += 1) {
    const store = new MemoryStore();
    const records: JournalRecord[] = [];
    const journal: UploadJournal = { read: () => [...records], append: (record) => records.push(record) };
    let puts = 0;
    store.beforeRequest = (request) => {
      if (request === 'put' && ++puts === failAt) throw new Error('the power went');
    };
    const gone = new Set<number>();
    const guarded = (): CutReader => {
      const cut = cutOf(blocks, changed);
      return {
        ...cut,
        // What was let go is gone: the guest has overwritten it.
        read: async (asked, target) => {
          for (const block of asked) assert.ok(!gone.has(block), `block ${block} was let go and is read again`);
          return cut.read(asked, target);
        },
        captured: (done) => {
          for (const block of done) gone.add(block);
        },
      };
    };
    wasCut = await run(store, guarded(), undefined, journal).then(
      () => false,
      () => true,
    );
    assert.equal(wasCut, puts >= failAt);
    if (!wasCut) break;
    store.beforeRequest = () => undefined;
    const { root } = await run(store, guarded(), undefined, journal);
    assertSame(await contents(store, root), blocks, `seed ${seed}, failed at put ${failAt}`);
  }
});

test('a pack that fails late fails the leaf that names it: the leaf is not taken for stored after a resume', async () => {
  // A leaf in four packs. The second one fails when the leaf's last batch, which fills the fourth, is about to go there.
  const blocks = new Map<number, Buffer>();
  for (let block = 0; block < 128; block += 1) blocks.set(block, randomBytes(BLOCK_BYTES));
  blocks.set(1024, randomBytes(BLOCK_BYTES));
  const changed = [...blocks.keys()];
  const store = new MemoryStore();
  const records: JournalRecord[] = [];
  const journal: UploadJournal = { read: () => [...records], append: (record) => records.push(record) };
  const failing = Promise.withResolvers<void>();
  let packs = 0;
  store.beforeRequest = async (request, key) => {
    if (request !== 'put' || !key.startsWith('packs/')) return;
    packs += 1;
    if (packs === 2) {
      await failing.promise;
      throw new Error('the power went');
    }
  };
  const cut = cutOf(blocks, changed);
  const late: CutReader = {
    ...cut,
    async read(asked, target) {
      const answer = await cut.read(asked, target);
      if (asked.includes(1024)) {
        failing.resolve();
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
      return answer;
    },
  };
  await assert.rejects(run(store, late, undefined, journal), /the power went/);
  assert.deepEqual(
    records.filter((record) => record.kind === 'leaf'),
    [],
    'a leaf is in the journal whose pack is not stored',
  );
  store.beforeRequest = () => undefined;
  const { root } = await run(store, cutOf(blocks, changed), undefined, journal);
  assertSame(await contents(store, root), blocks, 'after the resume');
});

test('nothing is named before it is stored: at every moment of an upload, each node leads to whole packs', async () => {
  const store = new MemoryStore();
  const blocks = new Map<number, Buffer>();
  for (let block = 0; block < 80; block += 1) blocks.set(block * 100, randomBytes(BLOCK_BYTES));
  store.beforeRequest = async (request, key, bytes = Buffer.alloc(0)) => {
    if (request !== 'put' || !key.startsWith('manifests/')) return;
    const node = key.slice(-64) as Sha256;
    const names = isLeaf(bytes)
      ? [...decodeLeaf(node, bytes).values()].map(({ pack }) => packKey(pack))
      : [...decodeBranch(node, bytes).values()].map((child) => nodeKey(child.node));
    for (const name of names) assert.ok(store.objects.has(name), `${key} goes out before ${name}`);
    const packs = [...store.objects].filter(([name]) => name.startsWith('packs/'));
    const stored = packs.flatMap(([, bytes]) => readPackIndex(bytes)).length;
    // The leaf that is about to be stored names blocks; all of them are in packs that are there by now.
    named = Math.max(named, stored);
    assert.ok(stored > 0, 'a manifest node goes out before any pack');
  };
  let named = 0;
  const { root } = await run(store, cutOf(blocks, [...blocks.keys()]), undefined);
  assertSame(await contents(store, root), blocks, 'all');
  assert.equal(named, 80);
});

test('a store that lies is found out: wrong bytes are never given', async () => {
  const store = new MemoryStore();
  const blocks = new Map([
    [5, randomBytes(BLOCK_BYTES)],
    [6, Buffer.alloc(BLOCK_BYTES, 'text ')],
  ]);
  const { root } = await run(store, cutOf(blocks, [5, 6]), undefined);
  for (const [key, bytes] of store.objects) {
    for (const at of [bytes.length >> 2, bytes.length >> 1]) {
      const lying = Buffer.from(bytes);
      lying[at] ^= 0x10;
      store.objects.set(key, lying);
      const source = new SnapshotSource(store, root, NO_PATIENCE);
      for (const [block, expected] of blocks) {
        const got = await source.read(asBlock(block)).catch((error: Error) => error);
        assert.ok(got instanceof Error || got?.equals(expected), `${key} changed at ${at}: block ${block} is wrong`);
      }
      store.objects.set(key, bytes);
    }
  }
});
