import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { DataKey } from '../../src/encryption/data-key.ts';
import { sha256 } from '../../src/snapshots/block-encoding.ts';
import { capture } from '../../src/snapshots/capture.ts';
import type { CutReader } from '../../src/snapshots/cut-reader.ts';
import { Manifest } from '../../src/snapshots/manifest.ts';
import { nodeKey, referencesOf } from '../../src/snapshots/manifest-node.ts';
import { packKey, readPackIndex } from '../../src/snapshots/pack.ts';
import { recode } from '../../src/snapshots/recode.ts';
import { SnapshotSource } from '../../src/snapshots/snapshot-source.ts';
import { type JournalRecord, NO_JOURNAL, type UploadJournal } from '../../src/snapshots/upload-journal.ts';
import { asBlock, BLOCK_BYTES, type Sha256 } from '../../src/types/units.ts';
import { assertSame, contents, cutOf, NO_PATIENCE, run, someBlock, storing } from '../support/captures.ts';
import { MemoryStore } from '../support/memory-store.ts';
import { chooseSeed, seededRandom } from '../support/random.ts';

const LINEAGE = 'a lineage of snapshots: each has just the bytes of its cut, whatever was deleted or rewritten between';
for (const key of [undefined, DataKey.generate()])
  test(key === undefined ? LINEAGE : `${LINEAGE}; encrypted`, async (t) => {
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
      const { root, dataBlocks } = await run(store, cut, base, NO_JOURNAL, key);
      assert.deepEqual([...cut.done].sort(), [...changed].sort(), 'every block is let go');
      assert.equal(dataBlocks, live.size);
      snapshots.push({ root, expected: new Map(live) });
      base = root;
    }
    for (const [index, { root, expected }] of snapshots.entries()) {
      assertSame(await contents(store, root, key), expected, `seed ${seed} snapshot ${index}`);
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
          for (const { block } of asked) assert.ok(!gone.has(block), `block ${block} was let go and is read again`);
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
      if (asked.some(({ block }) => block === 1024)) {
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
    const { nodes, packs: named } = referencesOf(node, bytes);
    const names = [...named.map(packKey), ...nodes.map(nodeKey)];
    for (const name of names) assert.ok(store.objects.has(name), `${key} goes out before ${name}`);
    const packs = [...store.objects].filter(([name]) => name.startsWith('packs/'));
    const stored = packs.flatMap(([, bytes]) => readPackIndex(bytes)).length;
    // The leaf that is about to be stored names blocks; all of them are in packs that are there by now.
    storedBlocks = Math.max(storedBlocks, stored);
    assert.ok(stored > 0, 'a manifest node goes out before any pack');
  };
  let storedBlocks = 0;
  const { root } = await run(store, cutOf(blocks, [...blocks.keys()]), undefined);
  assertSame(await contents(store, root), blocks, 'all');
  assert.equal(storedBlocks, 80);
});

for (const key of [undefined, DataKey.generate()]) {
  test(`a store that lies is found out: wrong bytes are never given${key === undefined ? '' : '; encrypted'}`, async () => {
    const store = new MemoryStore();
    const blocks = new Map([
      [5, randomBytes(BLOCK_BYTES)],
      [6, Buffer.alloc(BLOCK_BYTES, 'text ')],
    ]);
    const { root } = await run(store, cutOf(blocks, [5, 6]), undefined, NO_JOURNAL, key);
    for (const [name, bytes] of store.objects) {
      for (const at of [bytes.length >> 2, bytes.length >> 1]) {
        const lying = Buffer.from(bytes);
        lying[at] ^= 0x10;
        store.objects.set(name, lying);
        const source = SnapshotSource.of(store, root, NO_PATIENCE, key);
        for (const [block, expected] of blocks) {
          const got = await source.read(asBlock(block)).catch((error: Error) => error);
          assert.ok(got instanceof Error || got?.equals(expected), `${name} changed at ${at}: block ${block} is wrong`);
        }
        store.objects.set(name, bytes);
      }
    }
  });
}

test('an encrypted snapshot: nothing in the store tells what it holds, and only its own key opens it', async () => {
  const store = new MemoryStore();
  const key = DataKey.generate();
  const known = Buffer.alloc(BLOCK_BYTES, 'a block that someone else knows ');
  const blocks = new Map([
    [0, known],
    [9, randomBytes(BLOCK_BYTES)],
    [5000, Buffer.alloc(BLOCK_BYTES, 'more text ')],
  ]);
  const { root } = await run(store, cutOf(blocks, [...blocks.keys()]), undefined, NO_JOURNAL, key);
  const digest = Buffer.from(sha256(known), 'hex');
  for (const [name, bytes] of store.objects) {
    assert.ok(!bytes.includes('someone else knows'), `${name} holds the bytes`);
    assert.ok(!bytes.includes(digest), `${name} holds the hash of the bytes: whoever knows them could tell`);
  }
  for (const wrong of [undefined, DataKey.generate()]) {
    await assert.rejects(contents(store, root, wrong), /key/);
  }
  assertSame(await contents(store, root, key), blocks, 'with its key');
});

test('a copy under another key has the same bytes, and shares nothing with its source', async () => {
  const store = new MemoryStore();
  const keys = [undefined, DataKey.generate(), DataKey.generate(), undefined];
  const blocks = new Map<number, Buffer>();
  for (const block of [0, 1, 1023, 1024, 999_999]) blocks.set(block, randomBytes(BLOCK_BYTES));
  let { root } = await run(store, cutOf(blocks, [...blocks.keys()]), undefined, NO_JOURNAL, keys[0]);
  for (let step = 1; step < keys.length; step += 1) {
    const source = SnapshotSource.of(store, root, NO_PATIENCE, keys[step - 1]);
    const before = new Set(store.objects.keys());
    const copied = await recode(source, 1_000_000 * BLOCK_BYTES, storing(store, keys[step]));
    root = copied.root;
    assert.equal(copied.dataBlocks, blocks.size);
    assertSame(await contents(store, root, keys[step]), blocks, `copy ${step}`);
    // Without its source's objects it is still whole.
    if (step < 3) for (const name of before) store.objects.delete(name);
    assertSame(await contents(store, root, keys[step]), blocks, `copy ${step}, alone`);
  }
});

test('a volume restored under another key: its first snapshot holds what was never fetched, too', async () => {
  const store = new MemoryStore();
  const [old, own] = [DataKey.generate(), DataKey.generate()];
  const before = new Map<number, Buffer>();
  for (const block of [3, 4, 2000]) before.set(block, randomBytes(BLOCK_BYTES));
  const origin = await run(store, cutOf(before, [...before.keys()]), undefined, NO_JOURNAL, old);
  // Block 4 was overwritten, 7 is new; 3 and 2000 are still only in the snapshot.
  const written = new Map([
    [4, randomBytes(BLOCK_BYTES)],
    [7, randomBytes(BLOCK_BYTES)],
  ]);
  const cut = cutOf(written, [4, 7], true);
  const reader: CutReader = {
    ...cut,
    read: async (asked, target) => {
      await cut.read(asked, target);
      return asked.map(({ block }) => written.has(block));
    },
  };
  const { root, dataBlocks } = await capture({
    cut: reader,
    blocks: 1_000_000,
    store,
    base: new Manifest(store, undefined, NO_PATIENCE, own),
    absentFrom: SnapshotSource.of(store, origin.root, NO_PATIENCE, old),
    journal: NO_JOURNAL,
    patience: NO_PATIENCE,
    onProgress: () => undefined,
    signal: new AbortController().signal,
  });
  assert.equal(dataBlocks, 4);
  assertSame(await contents(store, root, own), new Map([...before, ...written]), 'the first snapshot');
});
