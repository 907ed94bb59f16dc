import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Catalog, openCatalog } from '../../src/catalog/catalog.ts';
import type { DataPlane } from '../../src/dataplane/data-plane.ts';
import { DataKey } from '../../src/encryption/data-key.ts';
import type { DataKeys } from '../../src/keys/data-keys.ts';
import { Lifecycle } from '../../src/lifecycle/lifecycle.ts';
import type { PackId } from '../../src/snapshots/block-encoding.ts';
import { capture } from '../../src/snapshots/capture.ts';
import { Manifest } from '../../src/snapshots/manifest.ts';
import { packKey } from '../../src/snapshots/pack.ts';
import { repack } from '../../src/snapshots/repack.ts';
import { getSnapshotRecord } from '../../src/snapshots/snapshot-record.ts';
import { SnapshotSource } from '../../src/snapshots/snapshot-source.ts';
import { NO_JOURNAL } from '../../src/snapshots/upload-journal.ts';
import type { SnapshotId } from '../../src/types/ids.ts';
import { ALL_PAGES } from '../../src/types/page-mask.ts';
import { asBlock, BLOCK_BYTES, type Sha256 } from '../../src/types/units.ts';
import { cutOf, NO_PATIENCE } from '../support/captures.ts';
import { insertSnapshot } from '../support/catalog-rows.ts';
import type { Cleanup } from '../support/cleanup.ts';
import { MemoryStore } from '../support/memory-store.ts';
import { chooseSeed, seededRandom } from '../support/random.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';

const HOUR = 3_600_000;
const KEY_ID = 'the-key';
const FIRST_PAGES = ALL_PAGES.map((_, index) => (index === 0 ? 0x0f : 0));

/** A block's bytes are told by one number, so that a snapshot's contents are a map of numbers. */
function blockOf(content: number): Buffer {
  const random = seededRandom(content);
  const block = Buffer.alloc(BLOCK_BYTES);
  for (let at = 0; at < 16 * 1024; at += 4) block.writeUInt32LE(Math.floor(random() * 2 ** 32), at);
  return block;
}

type Kept = { id: SnapshotId; key: DataKey | undefined; contents: Map<number, number> };

/** A store with lineages of snapshots, a catalog that has them, and a server's lifecycle without a server. */
class World {
  readonly store = new MemoryStore();
  readonly catalog: Catalog;
  readonly key = DataKey.generate();
  readonly kept: Kept[] = [];
  now = 0;
  /** Requests to the store that are still answered; after them the server is dead. */
  requestsLeft = Number.POSITIVE_INFINITY;
  requests = 0;

  constructor(catalog: Catalog) {
    this.catalog = catalog;
    this.store.beforeRequest = () => {
      this.requests += 1;
      this.requestsLeft -= 1;
      if (this.requestsLeft < 0) throw new Error('killed');
    };
  }

  /** What a start of the server makes anew. */
  lifecycle(): Lifecycle {
    const dataPlane = {
      stopping: false,
      afterHold: async () => undefined,
      repack: ({ groups, pinned, move, mostBytes }: Parameters<DataPlane['repack']>[0]) =>
        repack({
          store: this.store,
          patience: NO_PATIENCE,
          roots: groups.flatMap(({ key, roots }) => {
            const opened = key && new DataKey(key);
            return roots.map((root) => ({ root, key: opened }));
          }),
          pinned: { roots: pinned.roots, packs: pinned.packs as PackId[] },
          move,
          mostBytes,
        }),
    };
    return new Lifecycle(
      {
        catalog: this.catalog,
        dataPlane: dataPlane as unknown as DataPlane,
        store: this.store,
        keys: { open: async (id: string | null) => (id === null ? undefined : this.key) } as unknown as DataKeys,
        now: () => new Date(this.now),
        log: () => undefined,
      },
      { everyDays: 0, bytesPerSecond: 1e12 },
    );
  }

  /** Snapshots of one volume, each with some blocks changed; of all but the last most of the blocks die. */
  async lineage(random: () => number, key: DataKey | undefined): Promise<void> {
    let base: Sha256 | undefined;
    const contents = new Map<number, number>();
    for (let number = 0; number < 5; number += 1) {
      const changed = new Set<number>();
      for (let count = 0; count < 24; count += 1)
        changed.add(Math.floor(random() * 12) + Math.floor(random() * 3) * 1020);
      const ascending = [...changed].sort((a, b) => a - b);
      for (const block of ascending) contents.set(block, Math.floor(random() * 2 ** 32));
      const { root, dataBlocks } = await capture({
        // Whatever a block is, only its first pages are not zeroes: half of the blocks are patched.
        cut: cutOf(
          new Map(ascending.map((block) => [block, blockOf(contents.get(block) ?? 0)])),
          ascending,
          false,
          new Map(ascending.map((block) => [block, block % 2 === 0 ? ALL_PAGES : FIRST_PAGES])),
        ),
        blocks: 2048 + 1024,
        store: this.store,
        base: new Manifest(this.store, base, NO_PATIENCE, key),
        journal: NO_JOURNAL,
        patience: NO_PATIENCE,
        onProgress: () => undefined,
        signal: new AbortController().signal,
      });
      base = root;
      // Two of five stay: what the others alone had is dead.
      if (number === 1 || number === 2 || number === 3) continue;
      const row = await insertSnapshot(this.catalog, {
        root,
        data_blocks: dataBlocks,
        data_key_id: key ? KEY_ID : null,
      });
      this.kept.push({ id: row.snapshot_id, key, contents: new Map(contents) });
      await this.lifecycle().records.markStale(this.catalog, [row.snapshot_id]);
      await this.lifecycle().records.refreshStale();
    }
  }

  async check(what: string): Promise<void> {
    for (const { id, key, contents } of this.kept) {
      const row = await this.catalog
        .selectFrom('snapshots')
        .select('root')
        .where('snapshot_id', '=', id)
        .executeTakeFirstOrThrow();
      await this.checkRoot(row.root as Sha256, key, contents, `${what}, by the catalog`);
    }
  }

  /** As one who has nothing but the bucket sees them. */
  async checkRecords(what: string): Promise<void> {
    for (const { id, key, contents } of this.kept) {
      const record = await getSnapshotRecord(this.store, id);
      await this.checkRoot(record.root as Sha256, key, contents, `${what}, by the record`);
    }
  }

  async checkRoot(root: Sha256, key: DataKey | undefined, contents: Map<number, number>, what: string): Promise<void> {
    const source = SnapshotSource.of(this.store, root, NO_PATIENCE, key);
    assert.equal(await source.manifest.dataBlocks(), contents.size, what);
    for (const [block, content] of contents) {
      const bytes = await source.read(asBlock(block));
      assert.ok(bytes?.equals(blockOf(content)), `${what}: block ${block} is not what it was`);
    }
  }

  packs(): number {
    return [...this.store.objects.keys()].filter((key) => key.startsWith('packs/')).length;
  }

  packBytes(): number {
    return [...this.store.objects].reduce(
      (sum, [key, bytes]) => sum + (key.startsWith('packs/') ? bytes.length : 0),
      0,
    );
  }
}

async function newWorld(t: Cleanup, seed: number): Promise<World> {
  const catalog = await openCatalog(`${temporaryDirectory(t)}/catalog.sqlite`);
  t.after(() => catalog.destroy());
  const world = new World(catalog);
  await catalog.insertInto('data_keys').values({ data_key_id: KEY_ID, kms_key_arn: 'arn', wrapped: '' }).execute();
  const random = seededRandom(seed);
  const lifecycle = world.lifecycle();
  // Claims the store, as a start does.
  await lifecycle.recover();
  await world.lineage(random, undefined);
  await world.lineage(random, world.key);
  return world;
}

test('packs that are mostly dead are emptied: every snapshot is what it was, readers have a day, then the space is free', async (t) => {
  const seed = chooseSeed();
  t.diagnostic(`seed ${seed}`);
  const world = await newWorld(t, seed);
  const lifecycle = world.lifecycle();
  await lifecycle.collector.collect(true);
  const before = world.packBytes();
  const roots = await Promise.all(
    world.kept.map(async ({ id }) => (await getSnapshotRecord(world.store, id)).root as Sha256),
  );
  const shown = await lifecycle.repacker.run(false);
  assert.ok(shown.packs > 0 && shown.deadBytes > 0, 'there is something to be emptied');
  assert.equal(world.packBytes(), before, 'to look changes nothing');
  const done = await lifecycle.repacker.run(true);
  assert.deepEqual([done.packs, done.deadBytes], [shown.packs, shown.deadBytes]);
  await lifecycle.collector.collect(true);
  await world.check('after');
  await world.checkRecords('after');
  // Readers that began before it go on by the old manifests.
  for (const [index, { key, contents }] of world.kept.entries())
    await world.checkRoot(roots[index], key, contents, 'an old manifest');
  assert.equal((await lifecycle.repacker.run(true)).packs, 0, 'there is nothing left to be emptied');
  world.now += 25 * HOUR;
  await lifecycle.collector.collect(true);
  await world.check('a day later');
  await world.checkRecords('a day later');
  assert.ok(world.packBytes() <= before - done.deadBytes * 0.9, `${before} bytes before, ${world.packBytes()} after`);
});

test('a repacking that is killed at any request to the store loses nothing, and leaves nothing for ever', async (t) => {
  const seed = chooseSeed();
  t.diagnostic(`seed ${seed}`);
  const measured = await newWorld(t, seed);
  measured.requests = 0;
  await measured.lifecycle().repacker.run(true);
  const total = measured.requests;
  assert.ok(total > 20);
  await measured.lifecycle().collector.collect(true);
  measured.now += 25 * HOUR;
  await measured.lifecycle().collector.collect(true);
  const clean = measured.packs();
  // Some of all points, others with each seed; the last requests, at which records are written, always.
  const points = new Set([total - 4, total - 3, total - 2, total - 1]);
  const random = seededRandom(seed);
  while (points.size < 10) points.add(Math.floor(random() * total));
  for (const kill of points) {
    const world = await newWorld(t, seed);
    world.requestsLeft = kill;
    await assert.rejects(world.lifecycle().repacker.run(true));
    world.requestsLeft = Number.POSITIVE_INFINITY;
    const lifecycle = world.lifecycle();
    const what = `killed at request ${kill} of ${total}`;
    await world.check(what);
    await world.checkRecords(what);
    await lifecycle.collector.collect(true);
    world.now += 25 * HOUR;
    // A collection now takes the old manifests away: the records must have been put right before.
    await lifecycle.collector.collect(true);
    await world.check(what);
    await world.checkRecords(what);
    await lifecycle.repacker.run(true);
    world.now += 25 * HOUR;
    await lifecycle.collector.collect(true);
    await world.check(what);
    assert.equal(world.packs(), clean, `${what}: orphans are left`);
  }
});

test('what is in use under its old name is left alone, and a damaged block is not carried on', async (t) => {
  const seed = chooseSeed();
  t.diagnostic(`seed ${seed}`);
  const world = await newWorld(t, seed);
  const lifecycle = world.lifecycle();
  const [first] = world.kept;
  const { root } = await world.catalog
    .selectFrom('snapshots')
    .select('root')
    .where('snapshot_id', '=', first.id)
    .executeTakeFirstOrThrow();
  const copy = { snapshot_id: first.id, source_root: root as Sha256, source_key_id: null };
  await world.catalog.insertInto('snapshot_copies').values(copy).execute();
  await lifecycle.repacker.run(true);
  world.now += 25 * HOUR;
  await lifecycle.collector.collect(true);
  await world.checkRoot(root as Sha256, undefined, first.contents, 'the manifest that a copy is made from');
  await world.catalog.deleteFrom('snapshot_copies').execute();

  // One block is damaged, and stays where it is: moved, its wrong bytes would have a new place and no trace of the old.
  const manifest = new Manifest(world.store, root as Sha256, NO_PATIENCE, undefined);
  const { whole } = (await manifest.locate(asBlock([...first.contents.keys()][0]))) ?? assert.fail();
  const pack = world.store.objects.get(packKey(whole.pack)) ?? assert.fail();
  pack[whole.offset] ^= 0xff;
  await lifecycle.repacker.run(true);
  world.now += 25 * HOUR;
  await lifecycle.collector.collect(true);
  const [damage, ...others] = await lifecycle.scrubber.run();
  assert.equal(others.length, 0);
  assert.equal(damage.object, packKey(whole.pack));
});
