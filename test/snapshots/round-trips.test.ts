import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { assembleManifest } from '../../src/snapshots/assemble.ts';
import type { RecordLocation } from '../../src/snapshots/block-encoding.ts';
import { changedBlocks } from '../../src/snapshots/changed-blocks.ts';
import { Manifest } from '../../src/snapshots/manifest.ts';
import { LEAF_BLOCKS } from '../../src/snapshots/manifest-node.ts';
import { repack } from '../../src/snapshots/repack.ts';
import { ReadBefore, verifySnapshots } from '../../src/snapshots/verify.ts';
import { BLOCK_BYTES, type Sha256 } from '../../src/types/units.ts';
import { assertSame, contents, cutOf, NO_PATIENCE, run } from '../support/captures.ts';
import { MemoryStore } from '../support/memory-store.ts';

const LEAVES = 40;
/** Of so many leaves that could all be asked for at once, at least so many are; and never more than is bounded. */
const [LEAST, MOST] = [24, 32];

type Traffic = { gets: number; most: { get: number; put: number; remove: number } };

/** What is asked of a store in a network while `work` goes on: of its manifests' nodes, or its packs. */
async function trafficOf(store: MemoryStore, prefix: string, work: () => Promise<unknown>): Promise<Traffic> {
  const now = { get: 0, put: 0, remove: 0 };
  const traffic: Traffic = { gets: 0, most: { ...now } };
  store.beforeRequest = async (request, key) => {
    const counts = key.startsWith(prefix);
    if (counts) {
      now[request] += 1;
      traffic.most[request] = Math.max(traffic.most[request], now[request]);
      traffic.gets += Number(request === 'get');
    }
    await sleep(10);
    if (counts) now[request] -= 1;
  };
  try {
    await work();
  } finally {
    store.beforeRequest = () => undefined;
  }
  return traffic;
}

function assertTogether(most: number, what: string): void {
  assert.ok(most >= LEAST && most <= MOST, `${what}: ${most} at once`);
}

/** One block in each of many leaves. */
function scattered(text: string): Map<number, Buffer> {
  const blocks = new Map<number, Buffer>();
  for (let leaf = 0; leaf < LEAVES; leaf += 1)
    blocks.set(leaf * LEAF_BLOCKS, Buffer.alloc(BLOCK_BYTES, `${text} ${leaf} `));
  return blocks;
}

/** Two snapshots, of which the second differs in each leaf. */
async function twoSnapshots(): Promise<{
  store: MemoryStore;
  first: Sha256;
  second: Sha256;
  after: Map<number, Buffer>;
}> {
  const store = new MemoryStore();
  const before = scattered('before');
  const { root: first } = await run(store, cutOf(before, [...before.keys()]), undefined);
  const after = scattered('after');
  const { root: second } = await run(store, cutOf(after, [...after.keys()]), first);
  return { store, first, second, after };
}

test("a capture reads its base's leaves some at a time, and stores its own so", async () => {
  const { store, first, second, after } = await twoSnapshots();
  let root: Sha256 | undefined;
  const { most } = await trafficOf(store, 'manifests/', async () => {
    root = (await run(store, cutOf(after, [...after.keys()]), first)).root;
  });
  assertTogether(most.get, 'gets');
  assertTogether(most.put, 'puts');
  assertSame(await contents(store, second), await contents(store, root as Sha256), 'the same blocks');
});

test('who reads a snapshot from one end to the other has leaves and blocks on their way', async () => {
  const { store, second, after } = await twoSnapshots();
  let found = new Map<number, Buffer>();
  const nodes = await trafficOf(store, 'manifests/', async () => {
    found = await contents(store, second);
  });
  assertTogether(nodes.most.get, 'leaves');
  assertSame(found, after, 'what is read');
  const { most } = await trafficOf(store, 'packs/', () => contents(store, second));
  // Four that lie side by side are one request, and twenty blocks are under way.
  assert.ok(most.get === 4 || most.get === 5, `packs: ${most.get} at once`);
});

test('full leaves are read one or two at a time: each is a thousand blocks, and there is no hurry', async () => {
  const store = new MemoryStore();
  const blocks = new Map<number, Buffer>();
  const text = Buffer.alloc(BLOCK_BYTES, 'text ');
  for (let block = 0; block < 6 * LEAF_BLOCKS; block += 1) blocks.set(block, text);
  const { root } = await run(store, cutOf(blocks, [...blocks.keys()]), undefined);
  const { most, gets } = await trafficOf(store, 'manifests/', async () => {
    for await (const { leaf } of new Manifest(store, root, NO_PATIENCE, undefined).leaves()) {
      assert.equal(leaf.size, LEAF_BLOCKS);
    }
  });
  assert.equal(gets, 1 + 1 + 6);
  assert.equal(most.get, 2);
});

test('the blocks in which two snapshots differ are found in leaves that are read together', async () => {
  const { store, first, second, after } = await twoSnapshots();
  const blocks: number[] = [];
  const { most } = await trafficOf(store, 'manifests/', async () => {
    const manifests = [first, second].map((root) => new Manifest(store, root, NO_PATIENCE, undefined));
    for await (const { block } of changedBlocks(manifests[0], manifests[1], 0)) blocks.push(block);
  });
  assert.deepEqual(blocks, [...after.keys()]);
  // Of each leaf there are two.
  assert.ok(most.get >= LEAST && most.get <= 2 * MOST, `${most.get} at once`);
});

test('a manifest put together of blocks in packs reads and stores its leaves together', async () => {
  const { store, first, second } = await twoSnapshots();
  const named: { block: number; location: RecordLocation }[] = [];
  for await (const { number, leaf } of new Manifest(store, second, NO_PATIENCE, undefined).leaves()) {
    for (const [slot, { whole }] of leaf) named.push({ block: number * LEAF_BLOCKS + slot, location: whole });
  }
  const changes = async function* () {
    yield* named;
  };
  let root: Sha256 | undefined;
  const { most } = await trafficOf(store, 'manifests/', async () => {
    root = (await assembleManifest(store, first, NO_PATIENCE, undefined, changes())).root;
  });
  assertTogether(most.get, 'gets');
  assertTogether(most.put, 'puts');
  assert.equal(root, second);
});

test('a verification reads some records at a time, and leaves that it has found whole no second time', async () => {
  const { store, second, after } = await twoSnapshots();
  const changed = new Map([...after].slice(0, 1).map(([block]) => [block, Buffer.alloc(BLOCK_BYTES, 'third ')]));
  const { root: third } = await run(store, cutOf(changed, [...changed.keys()]), second);
  const snapshots = [second, third].map((root, index) => ({
    snapshotId: `snap-${index}`,
    volumeId: `vol-${index}`,
    startTime: '',
    root,
    key: undefined,
  }));
  const rootNow = async (id: string) => snapshots.find(({ snapshotId }) => snapshotId === id)?.root;
  const verify = () => verifySnapshots(store, snapshots, NO_PATIENCE, rootNow, () => undefined);
  const nodes = await trafficOf(store, 'manifests/', verify);
  // Root, branch and leaves of one; root, branch and one leaf of the other.
  assert.equal(nodes.gets, 1 + 1 + LEAVES + 3);
  const packs = await trafficOf(store, 'packs/', async () => {
    const { blocks, damage } = await verify();
    assert.deepEqual({ blocks, damage }, { blocks: LEAVES + 1, damage: [] });
  });
  // Eight that lie side by side with one request; three such runs are under way, or looked at.
  assert.equal(packs.gets, LEAVES / 8 + 1);
  assert.ok(packs.most.get === 2 || packs.most.get === 3, `${packs.most.get} at once`);
  // A leaf with a block that is damaged is looked at for each snapshot: all that need it are named.
  const [pack] = [...store.objects.keys()].filter((key) => key.startsWith('packs/')).slice(-2);
  store.objects.get(pack)?.fill(0);
  const { damage } = await verify();
  const affected = damage.map((each) => each.affected.map(({ snapshotId }) => snapshotId).join());
  assert.deepEqual(affected, ['snap-0', ...Array.from({ length: LEAVES - 1 }, () => 'snap-0,snap-1')]);
});

test('of snapshots of one volume each record is read once, however little is remembered', async () => {
  const store = new MemoryStore();
  const blocks = new Map(Array.from({ length: 60 }, (_, block) => [block, Buffer.alloc(BLOCK_BYTES, `${block} `)]));
  const roots = [(await run(store, cutOf(blocks, [...blocks.keys()]), undefined)).root];
  for (let at = 1; at < 5; at += 1) {
    blocks.set(at, Buffer.alloc(BLOCK_BYTES, `changed ${at} `));
    roots.push((await run(store, cutOf(blocks, [at]), roots[at - 1])).root);
  }
  // As a list of objects has them: by their ids, which say nothing of their order.
  const snapshots = roots
    .map((root, at) => ({
      snapshotId: `snap-${9 - at}`,
      volumeId: 'vol-1',
      startTime: `2026-01-01T00:00:0${at}Z`,
      root,
      key: undefined,
    }))
    .reverse();
  const rootNow = async (id: string) => snapshots.find(({ snapshotId }) => snapshotId === id)?.root;
  const verify = () =>
    verifySnapshots(store, snapshots, NO_PATIENCE, rootNow, () => undefined, { readBefore: new ReadBefore(1) });
  const { blocks: read, damage } = await verify();
  assert.deepEqual([read, damage], [60 + 4, []]);
  // What is damaged is looked at for each: all that need it are named, the first that has its own block in its place is not.
  const [pack] = [...store.objects.keys()].filter((key) => key.startsWith('packs/'));
  store.objects.get(pack)?.fill(0);
  const bad = (await verify()).damage.flatMap(({ affected }) => affected);
  for (const [at, { snapshotId }] of [...snapshots].reverse().entries()) {
    const own = bad.filter((each) => each.snapshotId === snapshotId).flatMap((each) => each.blocks);
    assert.equal(new Set(own).size, 60 - at, snapshotId);
  }
});

test('a look for packs that are mostly dead reads nodes together, and each once', async () => {
  const { store, second } = await twoSnapshots();
  const roots = [{ root: second, key: undefined }];
  const options = { store, patience: NO_PATIENCE, roots, pinned: { roots: [], packs: [] }, mostBytes: 1e9 };
  const { most, gets } = await trafficOf(store, 'manifests/', () => repack({ ...options, move: false }));
  assertTogether(most.get, 'nodes');
  assert.equal(gets, 1 + 1 + LEAVES);
});
