import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Catalog, openCatalog } from '../../src/catalog/catalog.ts';
import type { DataPlane } from '../../src/dataplane/data-plane.ts';
import type { DataKeys } from '../../src/keys/data-keys.ts';
import { Lifecycle } from '../../src/lifecycle/lifecycle.ts';
import { Marking, removeGarbage } from '../../src/snapshots/collection.ts';
import { newId } from '../../src/types/ids.ts';
import { asEpoch, type Sha256 } from '../../src/types/units.ts';
import { assertSame, contents, cutOf, run, someBlock } from '../support/captures.ts';
import { insertSnapshot } from '../support/catalog-rows.ts';
import { MemoryStore } from '../support/memory-store.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';

function lifecycleOf(catalog: Catalog, store: MemoryStore, dataPlane: DataPlane): Lifecycle {
  return new Lifecycle(
    { catalog, dataPlane, store, keys: {} as unknown as DataKeys, now: () => new Date(0), log: () => undefined },
    { everyDays: 0, bytesPerSecond: 1e12 },
  );
}

async function newWorld(t: TestContext) {
  const catalog = await openCatalog(`${temporaryDirectory(t)}/catalog.sqlite`);
  t.after(() => catalog.destroy());
  const store = new MemoryStore();
  const lifecycle = lifecycleOf(catalog, store, {
    stopping: false,
    afterHold: async () => undefined,
  } as Partial<DataPlane> as DataPlane);
  /** Stores a snapshot of these blocks; nothing names it yet. */
  const stored = async (blocks: Map<number, Buffer>): Promise<Sha256> =>
    (await run(store, cutOf(blocks, [...blocks.keys()]), undefined)).root;
  const live = (roots: Sha256[]) => ({ roots, packs: [], snapshotIds: [] });
  return { catalog, store, lifecycle, stored, live };
}

test('uploads go on while a collection looks; it waits for their end before it removes anything, and what they stored stays', async (t) => {
  const { catalog, store, lifecycle, stored } = await newWorld(t);
  await lifecycle.storeOwner.claim();
  const [first, second, third] = [1, 2, 3].map((block) => new Map([[block, someBlock(Math.random)]]));
  const roots = [await stored(first)];
  await insertSnapshot(catalog, { root: roots[0] });
  await stored(new Map([[4, someBlock(Math.random)]]));
  const all = store.objects.size;
  const [looking, go] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  store.beforeRequest = (request, key) => {
    if (request !== 'get' || !key.startsWith('manifests/')) return;
    looking.resolve();
    return go.promise;
  };
  const collecting = lifecycle.collector.collect(true);
  let isOver = false;
  void collecting.then(() => {
    isOver = true;
  });
  await looking.promise;
  assert.equal((await lifecycle.collector.collect(true)).busy, 'another collection is under way');
  // One that ends before the collection looks again, and one that does not.
  await lifecycle.uploads.upload('snapshot', async () => {
    roots.push(await stored(second));
    await insertSnapshot(catalog, { root: roots[1] });
  });
  const ended = Promise.withResolvers<void>();
  const long = lifecycle.uploads.upload('snapshot', async () => {
    roots.push(await stored(third));
    await ended.promise;
    await insertSnapshot(catalog, { root: roots[2] });
  });
  go.resolve();
  await sleep(300);
  assert.equal(isOver, false, 'nothing is removed while an upload is under way');
  assert.ok(store.objects.size > all);
  ended.resolve();
  await long;
  const collected = await collecting;
  assert.deepEqual([collected.busy, collected.removed], [undefined, true]);
  // A pack, and three nodes, that nobody names.
  assert.equal(collected.objects, 4);
  for (const [index, blocks] of [first, second, third].entries())
    assertSame(await contents(store, roots[index]), blocks, `snapshot ${index}`);
  assert.equal((await lifecycle.collector.collect(false)).objects, 0);
});

test('snapshots that wait for their uploads keep no collection away; those that began, and imports, do', async (t) => {
  const { catalog, store, lifecycle, stored } = await newWorld(t);
  await lifecycle.storeOwner.claim();
  const volume_id = newId('vol');
  const collect = async (): Promise<string | undefined> => (await lifecycle.collector.collect(false)).busy;
  const waiting = (await insertSnapshot(catalog, { volume_id, boundary: asEpoch(3) })).snapshot_id;
  assert.equal(await collect(), undefined);
  const imported = (await insertSnapshot(catalog, {})).snapshot_id;
  assert.equal(await collect(), `${imported} is being imported`);
  const insisting = await lifecycle.collector.collect(false, true);
  assert.equal(insisting.busy, `${imported} is being imported`);
  await catalog.deleteFrom('snapshots').where('snapshot_id', '=', imported).execute();

  // The server that had it before may have stored something of it.
  const plane = { resumeCuts: async () => [], stopping: true };
  const next = lifecycleOf(catalog, store, plane as Partial<DataPlane> as DataPlane);
  await next.snapshots.recover();
  assert.equal((await next.collector.collect(false)).busy, `${waiting} is not stored yet`);

  // And one that is always at it, snapshot by snapshot, has a moment for a collection that insists.
  await stored(new Map([[4, someBlock(Math.random)]]));
  let [isOver, uploads] = [false, 0];
  t.after(() => {
    isOver = true;
  });
  const busy = [1, 2].map(async () => {
    while (!isOver) {
      await lifecycle.uploads.upload('snapshot', () => sleep(20));
      uploads += 1;
    }
  });
  // The second begins in the middle of the first.
  await sleep(10);
  assert.equal(await collect(), 'an upload is under way');
  assert.equal((await lifecycle.collector.collect(true, true)).objects, 4);
  const before = uploads;
  while (uploads < before + 2) await sleep(1);
  isOver = true;
  await Promise.all(busy);
});

test('nodes are read several at once, each of them once; a mark that is not whole says so', async (t) => {
  const { store, stored, live } = await newWorld(t);
  // A leaf for each.
  const blocks = new Map(Array.from({ length: 40 }, (_, index) => [index * 1024, someBlock(Math.random)]));
  const root = await stored(blocks);
  const reads: string[] = [];
  let [now, most] = [0, 0];
  store.beforeRequest = async (request, key) => {
    assert.equal(request, 'get');
    reads.push(key);
    now += 1;
    most = Math.max(most, now);
    await sleep(1);
    now -= 1;
  };
  const marking = new Marking(store);
  await marking.add(live([root]));
  assert.ok(most > 16 && most <= 32, `${most} at once`);
  assert.equal(reads.length, 42);
  assert.equal(new Set(reads).size, 42);
  await marking.add(live([root]));
  assert.equal(reads.length, 42, 'what is known is not read again');
  assert.deepEqual((await marking.listUnneeded()).objects, []);

  let asked = 0;
  store.beforeRequest = async () => {
    asked += 1;
    if (asked === 5) throw new Error('away');
    await sleep(1);
  };
  await assert.rejects(new Marking(store).add(live([root])), /away/);
  // The two above the leaves, and the leaves that were on their way already.
  assert.ok(asked <= 2 + 32, `${asked}: after the first failure nothing more is asked`);
});

test('what is removed goes in an order that leaves nothing behind that names what is gone, also where a removal fails', async (t) => {
  const { store, stored } = await newWorld(t);
  await stored(new Map(Array.from({ length: 40 }, (_, index) => [index * 1024, someBlock(Math.random)])));
  const garbage = await new Marking(store).listUnneeded();
  assert.equal(garbage.objects.length, store.objects.size);
  let left = 10;
  store.beforeRequest = () => {
    left -= 1;
    if (left < 0) throw new Error('away');
  };
  await assert.rejects(removeGarbage(store, garbage), /away/);
  const packs = garbage.objects.filter(({ key }) => key.startsWith('packs/'));
  assert.ok(packs.length > 0 && packs.every(({ key }) => store.objects.has(key)), 'manifests name them still');
  store.beforeRequest = () => undefined;
  await removeGarbage(store, await new Marking(store).listUnneeded());
  assert.equal(store.objects.size, 0);
});
