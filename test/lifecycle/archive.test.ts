import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { type TestContext, test } from 'node:test';
import { archivesOf, putArchive } from '../../src/catalog/archive.ts';
import { type Catalog, openCatalog } from '../../src/catalog/catalog.ts';
import { deleteSnapshotRow } from '../../src/catalog/delete-snapshot.ts';
import type { SnapshotArchiveRow, TieringOperation } from '../../src/catalog/schema.ts';
import { putTags } from '../../src/catalog/tags.ts';
import type { DataPlane } from '../../src/dataplane/data-plane.ts';
import type { RecodeOrder } from '../../src/dataplane/messages.ts';
import type { DataKeys } from '../../src/keys/data-keys.ts';
import { ArchiveRunner } from '../../src/lifecycle/archive-runner.ts';
import { ResourceLocks } from '../../src/lifecycle/resource-locks.ts';
import { SnapshotRecords } from '../../src/lifecycle/snapshot-records.ts';
import { StoreOwner } from '../../src/lifecycle/store-owner.ts';
import { UploadGate } from '../../src/lifecycle/upload-gate.ts';
import { folderOf } from '../../src/objects/folder-store.ts';
import type { Captured } from '../../src/snapshots/capture.ts';
import { recodeAndRead } from '../../src/snapshots/recode.ts';
import { getSnapshotRecord, hasSnapshotRecord } from '../../src/snapshots/snapshot-record.ts';
import { SnapshotSource } from '../../src/snapshots/snapshot-source.ts';
import { newId, type SnapshotId } from '../../src/types/ids.ts';
import { asBlock, BLOCK_BYTES, DAY_MILLISECONDS, type Sha256 } from '../../src/types/units.ts';
import { assertSame, contents, cutOf, NO_PATIENCE, run, storing } from '../support/captures.ts';
import { insertSnapshot, OWNER } from '../support/catalog-rows.ts';
import { MemoryStore } from '../support/memory-store.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';

const START = Date.parse('2026-01-01T00:00:00Z');

/** A catalog, an object store and an archive, which outlive the servers that use them. */
class World {
  readonly catalog: Catalog;
  readonly store = new MemoryStore();
  readonly archive = new MemoryStore();
  readonly logged: string[] = [];
  now = START;
  readonly blocks = new Map<number, Buffer>();

  constructor(catalog: Catalog) {
    this.catalog = catalog;
    for (const block of [0, 1, 7, 1030]) this.blocks.set(block, randomBytes(BLOCK_BYTES));
  }

  /** A server, until it is killed. */
  server(): { runner: ArchiveRunner; records: SnapshotRecords; gate: UploadGate; kill: () => void } {
    const { catalog, store, archive } = this;
    const records = new SnapshotRecords(catalog, store, archive);
    const dataPlane = { stopping: false, recode: (order: RecodeOrder) => this.#recode(order), cancelRecode() {} };
    const options = {
      catalog,
      store,
      archive,
      dataPlane: dataPlane as unknown as DataPlane,
      keys: { open: async () => undefined } as unknown as DataKeys,
      now: () => new Date(this.now),
      log: (_: string, message: string) => this.logged.push(message),
    };
    const gate = new UploadGate();
    const runner = new ArchiveRunner(options, new ResourceLocks(), gate, records, new StoreOwner(catalog, store));
    return { runner, records, gate, kill: () => Object.assign(dataPlane, { stopping: true }) };
  }

  /** As a worker does it. */
  #recode({ snapshotId, source, sizeBytes, move }: RecodeOrder): Promise<Captured> {
    const folder = folderOf(this.archive, snapshotId);
    const [from, to] = move === 'to-archive' ? [this.store, folder] : [folder, this.store];
    const { root } = source;
    return recodeAndRead(SnapshotSource.of(from, root, NO_PATIENCE, undefined), sizeBytes, {
      ...storing(this.store, undefined),
      store: to,
    });
  }

  async newSnapshot(): Promise<SnapshotId> {
    const { root } = await run(this.store, cutOf(this.blocks, [...this.blocks.keys()]), undefined);
    const { snapshot_id } = await insertSnapshot(this.catalog, { root, data_blocks: this.blocks.size });
    const { records } = this.server();
    await records.markStale(this.catalog, [snapshot_id]);
    await records.refreshStale();
    return snapshot_id;
  }

  async ask(snapshot_id: SnapshotId, operation: TieringOperation, restore_days: number | null = null): Promise<void> {
    const last = (await archivesOf(this.catalog, [snapshot_id])).get(snapshot_id);
    const { root = null, archived_at = null } = last ?? {};
    const begun = { status: 'in-progress', detail: '', started_at: new Date(this.now).toISOString() } as const;
    await putArchive(this.catalog, {
      ...begun,
      snapshot_id,
      operation,
      root,
      archived_at,
      restore_days,
      restored_until: null,
    });
  }

  async rows(snapshotId: SnapshotId): Promise<{ root: Sha256 | null; archive: SnapshotArchiveRow | undefined }> {
    const row = await this.catalog
      .selectFrom('snapshots')
      .select('root')
      .where('snapshot_id', '=', snapshotId)
      .executeTakeFirstOrThrow();
    return { root: row.root, archive: (await archivesOf(this.catalog, [snapshotId])).get(snapshotId) };
  }

  /** As DeleteSnapshot does it. */
  async delete(snapshotId: SnapshotId): Promise<void> {
    const row = await this.catalog
      .selectFrom('snapshots')
      .selectAll()
      .where('snapshot_id', '=', snapshotId)
      .executeTakeFirstOrThrow();
    await this.catalog.transaction().execute((transaction) => deleteSnapshotRow(transaction, row));
  }

  /** That wherever the catalog says that the snapshot is, it is whole. @returns where */
  async places(snapshotId: SnapshotId): Promise<string[]> {
    const { root, archive } = await this.rows(snapshotId);
    const places: string[] = [];
    if (root !== null) {
      assertSame(await contents(this.store, root), this.blocks, 'in the store');
      places.push('store');
    }
    if (archive?.root != null) {
      const found = new Map<number, Buffer>();
      const source = SnapshotSource.of(folderOf(this.archive, snapshotId), archive.root, NO_PATIENCE, undefined);
      for await (const { block, bytes } of source.blocks(asBlock(0))) found.set(block, Buffer.from(bytes));
      assertSame(found, this.blocks, 'in the archive');
      places.push('archive');
    }
    assert.ok(places.length > 0, 'it is nowhere');
    return places;
  }

  /** In which of the stores the record is, that of the folder of the archive too. */
  async recorded(snapshotId: SnapshotId): Promise<string[]> {
    const stores = { store: this.store, archive: this.archive, folder: folderOf(this.archive, snapshotId) };
    const found: string[] = [];
    for (const [name, store] of Object.entries(stores))
      if (await hasSnapshotRecord(store, snapshotId)) found.push(name);
    return found;
  }
}

async function newWorld(t: TestContext): Promise<World> {
  const catalog = await openCatalog(`${temporaryDirectory(t)}/catalog.sqlite`);
  t.after(() => catalog.destroy());
  const world = new World(catalog);
  await new StoreOwner(catalog, world.store).claim();
  return world;
}

/** Until nothing is being moved any more, by that server. */
async function settled(world: World, runner: ArchiveRunner, snapshotId: SnapshotId): Promise<void> {
  runner.kick(snapshotId);
  const before = performance.now();
  while (runner.reportProgress(snapshotId, { doneBlocks: 0, totalBlocks: 0, storedBytes: 0 })) {
    assert.ok(performance.now() - before < 20_000, `${snapshotId} is still being moved: ${world.logged}`);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

test('a snapshot moves to the archive whole, with its record, and leaves the store', async (t) => {
  const world = await newWorld(t);
  const id = await world.newSnapshot();
  const { root: before } = await world.rows(id);
  await world.ask(id, 'archival');
  const { runner } = world.server();
  await settled(world, runner, id);
  assert.deepEqual(await world.places(id), ['archive']);
  assert.deepEqual(await world.recorded(id), ['archive', 'folder']);
  const { archive } = await world.rows(id);
  assert.deepEqual(
    [archive?.status, archive?.archived_at, archive?.restored_until],
    ['completed', new Date(START).toISOString(), null],
  );
  const record = await getSnapshotRecord(folderOf(world.archive, id), id);
  assert.deepEqual(
    [record.format, record.root, record.archive],
    [5, archive?.root, { root: archive?.root, since: archive?.archived_at, restoredUntil: null }],
  );
  // Who reads it just now may read on: its manifest is kept for a day.
  const retired = await world.catalog.selectFrom('retired_roots').select('root').execute();
  assert.deepEqual(retired, [{ root: before }]);
});

test('it comes back for some days, or for good', async (t) => {
  const world = await newWorld(t);
  const id = await world.newSnapshot();
  await world.ask(id, 'archival');
  const { runner, records } = world.server();
  await settled(world, runner, id);
  await world.ask(id, 'temporary-restore', 2);
  world.now += 1000;
  await settled(world, runner, id);
  assert.deepEqual(await world.places(id), ['store', 'archive']);
  assert.deepEqual(await world.recorded(id), ['store', 'archive', 'folder']);
  const until = START + 1000 + 2 * DAY_MILLISECONDS;
  assert.equal((await world.rows(id)).archive?.restored_until, new Date(until).toISOString());
  assert.equal(
    (await getSnapshotRecord(world.store, id)).archive?.restoredUntil,
    new Date(until).toISOString(),
    'which a rebuild must know',
  );
  world.now = until - 1;
  await runner.endRestores();
  assert.deepEqual(await world.places(id), ['store', 'archive']);
  world.now = until;
  await runner.endRestores();
  await records.refreshStale();
  assert.deepEqual(await world.places(id), ['archive']);
  assert.deepEqual(await world.recorded(id), ['archive', 'folder']);

  await world.ask(id, 'permanent-restore');
  await settled(world, runner, id);
  assert.deepEqual(await world.places(id), ['store']);
  await runner.removeDeleted();
  assert.deepEqual([...world.archive.objects.keys()], []);
  assert.deepEqual(await world.recorded(id), ['store']);
  assert.equal((await getSnapshotRecord(world.store, id)).format, 1);
});

for (const operation of ['archival', 'temporary-restore', 'permanent-restore'] as const) {
  test(`killed at any of its requests, a move (${operation}) is made by the next start, and the snapshot is whole all the time`, async (t) => {
    const world = await newWorld(t);
    const id = await world.newSnapshot();
    if (operation !== 'archival') {
      await world.ask(id, 'archival');
      await settled(world, world.server().runner, id);
    }
    await world.ask(id, operation, operation === 'temporary-restore' ? 1 : null);
    let kills = 0;
    for (let at = 1; ; at += 1) {
      const { runner, kill } = world.server();
      let requests = 0;
      let isDead = false;
      const beforeRequest = (): void => {
        requests += 1;
        if (requests >= at) {
          isDead = true;
          kill();
        }
        // Nothing that a dead server asks for reaches a store.
        if (isDead) throw new Error('killed');
      };
      world.store.beforeRequest = beforeRequest;
      world.archive.beforeRequest = beforeRequest;
      await settled(world, runner, id);
      world.store.beforeRequest = () => undefined;
      world.archive.beforeRequest = () => undefined;
      await world.places(id);
      if (!isDead) break;
      kills += 1;
    }
    assert.ok(kills > 10, `${kills} kills`);
    const { runner, records } = world.server();
    await records.refreshStale();
    await runner.removeDeleted();
    const places = { archival: ['archive'], 'temporary-restore': ['store', 'archive'], 'permanent-restore': ['store'] };
    assert.deepEqual(await world.places(id), places[operation]);
    const recordsAt = { archival: ['archive', 'folder'], 'temporary-restore': ['store', 'archive', 'folder'] };
    assert.deepEqual(await world.recorded(id), operation === 'permanent-restore' ? ['store'] : recordsAt[operation]);
    if (operation === 'permanent-restore') assert.equal(world.archive.objects.size, 0);
    // What the archive has is of one attempt alone.
    else assert.equal([...world.archive.objects.keys()].filter((key) => key.includes('/packs/')).length, 1);
  });
}

test('what a move reads is known to collections, as long as it does; they do not wait for it', async (t) => {
  const world = await newWorld(t);
  const id = await world.newSnapshot();
  const { root } = await world.rows(id);
  await world.ask(id, 'archival');
  const { runner, gate } = world.server();
  const seen: unknown[] = [];
  world.archive.beforeRequest = async (request, key) => {
    if (request === 'put' && key.includes('/packs/')) seen.push([runner.rootsBeingRead(), gate.busy]);
  };
  await settled(world, runner, id);
  assert.deepEqual(seen, [[[root], false]]);
  assert.deepEqual(runner.rootsBeingRead(), []);
  // One that comes back has objects in the store that nothing names yet.
  const wereBusy: boolean[] = [];
  await world.ask(id, 'permanent-restore');
  world.store.beforeRequest = (request, key) => {
    if (request === 'put' && key.startsWith('packs/')) wereBusy.push(gate.busy);
  };
  await settled(world, runner, id);
  assert.deepEqual(wereBusy, [true]);
});

test('a move that is asked for before the last has quite ended is made, too', async (t) => {
  const world = await newWorld(t);
  const id = await world.newSnapshot();
  await world.ask(id, 'archival');
  const { runner } = world.server();
  world.store.beforeRequest = async (request) => {
    // The catalog says that it is archived, and the last thing is done.
    if (request !== 'remove' || (await world.rows(id)).archive?.status !== 'completed') return;
    await world.ask(id, 'permanent-restore');
    runner.kick(id);
  };
  await settled(world, runner, id);
  assert.deepEqual(await world.places(id), ['store']);
});

for (const lie of ['stores other bytes', 'stores nothing'] as const) {
  test(`an archive that ${lie} is found out: the snapshot stays where it is`, async (t) => {
    const world = await newWorld(t);
    const id = await world.newSnapshot();
    await world.ask(id, 'archival');
    world.archive.beforeRequest = (request, key, bytes) => {
      if (!key.includes('/packs/')) return;
      if (request === 'put' && bytes !== undefined && lie === 'stores other bytes') bytes[5000] ^= 1;
      if (request === 'get' && lie === 'stores nothing') world.archive.objects.delete(key);
    };
    const { runner } = world.server();
    await settled(world, runner, id);
    const { archive } = await world.rows(id);
    assert.equal(archive?.status, 'failed');
    assert.match(archive?.detail ?? '', /packs/);
    assert.deepEqual(await world.places(id), ['store']);
    assert.deepEqual(await world.recorded(id), ['store']);
    assert.ok(world.logged.some((line) => line.includes(`${id}: its archival failed`)));
    world.archive.beforeRequest = () => undefined;
    await runner.removeDeleted();
    assert.equal(world.archive.objects.size, 0);
  });
}

test('a snapshot that is deleted while it moves leaves nothing in the archive', async (t) => {
  const world = await newWorld(t);
  const id = await world.newSnapshot();
  await world.ask(id, 'archival');
  const { runner, records } = world.server();
  let requests = 0;
  world.archive.beforeRequest = async (request) => {
    if (request !== 'put') return;
    requests += 1;
    if (requests !== 1) return;
    await world.delete(id);
    // What the move still brings there is yet to come.
    await runner.removeDeleted();
  };
  await settled(world, runner, id);
  assert.ok(world.archive.objects.size > 0);
  await runner.removeDeleted();
  await records.refreshStale();
  assert.equal(world.archive.objects.size, 0);
  assert.deepEqual(await world.recorded(id), []);
  assert.deepEqual(await world.catalog.selectFrom('deleted_archives').selectAll().execute(), []);
});

test('what the archive has of a deleted snapshot is removed, and by the next start if it is away', async (t) => {
  const world = await newWorld(t);
  const [id, other] = [await world.newSnapshot(), await world.newSnapshot()];
  for (const each of [id, other]) {
    await world.ask(each, 'archival');
    await settled(world, world.server().runner, each);
  }
  await world.delete(id);
  let left = 2;
  world.archive.beforeRequest = (request) => {
    left -= 1;
    if (request === 'remove' && left < 0) throw new Error('away');
  };
  await assert.rejects(world.server().runner.removeDeleted(), /away/);
  world.archive.beforeRequest = () => undefined;
  await world.server().runner.removeDeleted();
  assert.ok([...world.archive.objects.keys()].every((key) => key.includes(other)));
  assert.deepEqual(await world.places(other), ['archive']);
});

test('a copy of the server takes nothing away from the archive: neither what is deleted, nor what it would move there', async (t) => {
  const world = await newWorld(t);
  const [deleted, archived] = [await world.newSnapshot(), await world.newSnapshot()];
  for (const each of [deleted, archived]) {
    await world.ask(each, 'archival');
    await settled(world, world.server().runner, each);
  }
  const before = new Map(world.archive.objects);
  const owned = world.store.objects.get('owner.json') ?? Buffer.alloc(0);
  await world.store.put('owner.json', [Buffer.from(JSON.stringify({ serverId: 'another' }))]);
  await world.delete(deleted);
  const { runner } = world.server();
  await assert.rejects(runner.removeDeleted(), /another server/);
  await world.ask(archived, 'permanent-restore');
  await settled(world, runner, archived);
  assert.deepEqual(world.archive.objects, before);
  assert.equal((await world.rows(archived)).archive?.status, 'in-progress');
  // When it is the owner again, it goes on by itself.
  await world.store.put('owner.json', [owned]);
  await runner.resume();
  await settled(world, runner, archived);
  await runner.removeDeleted();
  assert.deepEqual(await world.places(archived), ['store']);
  assert.equal(world.archive.objects.size, 0);
});

test('a snapshot that an image names by the time that it is in the archive stays where it is', async (t) => {
  const world = await newWorld(t);
  const id = await world.newSnapshot();
  await world.ask(id, 'archival');
  const image = { image_id: newId('ami'), ...OWNER, name: 'new', description: '', root_device_name: '/dev/xvda' };
  const computer = {
    architecture: 'x86_64',
    virtualization_type: 'hvm',
    ena_support: 1,
    sriov_net_support: null,
  } as const;
  const disk = {
    device_name: '/dev/xvda',
    snapshot_id: id,
    size_gib: 1,
    volume_type: 'gp3',
    iops: null,
    throughput: null,
  };
  await world.catalog
    .insertInto('images')
    .values({ ...image, ...computer, is_public: 0, created_at: '' })
    .execute();
  await world.catalog
    .insertInto('image_devices')
    .values({ image_id: image.image_id, ...disk, delete_on_termination: 1 })
    .execute();
  const { runner } = world.server();
  await settled(world, runner, id);
  const { archive } = await world.rows(id);
  assert.deepEqual([archive?.status, archive?.detail], ['failed', `the snapshot is in use by ${image.image_id}`]);
  assert.deepEqual(await world.places(id), ['store']);
  await runner.removeDeleted();
  assert.equal(world.archive.objects.size, 0);
});

test('while the archive is away its records wait, and the object store’s do not', async (t) => {
  const world = await newWorld(t);
  const [there, here] = [await world.newSnapshot(), await world.newSnapshot()];
  for (const id of [there, here]) {
    await world.ask(id, 'archival');
    await settled(world, world.server().runner, id);
  }
  await world.ask(here, 'temporary-restore', 1);
  await settled(world, world.server().runner, here);
  const { records } = world.server();
  const owner = { resourceType: 'snapshot' as const, accountId: OWNER.account_id, region: OWNER.region };
  for (const id of [there, here]) await putTags(world.catalog, { ...owner, resourceId: id }, new Map([['k', 'v']]));
  await records.markStale(world.catalog, [there, here]);
  world.archive.beforeRequest = () => {
    throw new Error('away');
  };
  const waiting = await records.refreshStale();
  assert.deepEqual(waiting.map((line) => line.slice(0, there.length)).sort(), [there, here].sort());
  assert.match(waiting[0], /in the archive will be later: away/);
  assert.deepEqual((await getSnapshotRecord(world.store, here)).tags, [{ key: 'k', value: 'v' }]);
  world.archive.beforeRequest = () => undefined;
  assert.deepEqual(await records.refreshStale(), []);
  for (const id of [there, here]) assert.equal((await getSnapshotRecord(world.archive, id)).tags.length, 1);
  assert.deepEqual(await world.catalog.selectFrom('stale_records').selectAll().execute(), []);
});

test('a server without the archive leaves the record of what is there for one that has it', async (t) => {
  const world = await newWorld(t);
  const id = await world.newSnapshot();
  await world.ask(id, 'archival');
  await settled(world, world.server().runner, id);
  const without = new SnapshotRecords(world.catalog, world.store);
  await without.markStale(world.catalog, [id]);
  await without.refreshStale();
  assert.equal((await world.catalog.selectFrom('stale_records').selectAll().execute()).length, 1);
  await world.server().records.refreshStale();
  assert.deepEqual(await world.catalog.selectFrom('stale_records').selectAll().execute(), []);
});
