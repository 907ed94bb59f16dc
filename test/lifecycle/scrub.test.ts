import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { openCatalog } from '../../src/catalog/catalog.ts';
import type { DataPlane } from '../../src/dataplane/data-plane.ts';
import type { DataKeys } from '../../src/keys/data-keys.ts';
import { Bases } from '../../src/lifecycle/bases.ts';
import { Scrubber } from '../../src/lifecycle/scrubber.ts';
import { realPatience } from '../../src/objects/patience.ts';
import { capture } from '../../src/snapshots/capture.ts';
import { Manifest } from '../../src/snapshots/manifest.ts';
import { NO_JOURNAL } from '../../src/snapshots/upload-journal.ts';
import { damagedFor, verifySnapshots } from '../../src/snapshots/verify.ts';
import { knownId } from '../../src/types/ids.ts';
import { ALL_PAGES } from '../../src/types/page-mask.ts';
import { asEpoch, BLOCK_BYTES, NO_BASE, type Sha256 } from '../../src/types/units.ts';
import { cutOf, run } from '../support/captures.ts';
import { insertSnapshot, insertVolume } from '../support/catalog-rows.ts';
import { MemoryStore } from '../support/memory-store.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';

test('the background scrub names what is damaged and who needs it, and says nothing of what was deleted meanwhile', async (t) => {
  const catalog = await openCatalog(`${temporaryDirectory(t)}/catalog.sqlite`);
  t.after(() => catalog.destroy());
  const store = new MemoryStore();
  const patience = realPatience(1000);
  const block = randomBytes(BLOCK_BYTES);
  const { root } = await capture({
    cut: {
      changed: async (from) => ({ blocks: [3, 9].filter((each) => each >= from), more: false, compareAll: false }),
      written: async (blocks) => blocks.map(() => ALL_PAGES),
      async read(pieces, target) {
        for (const index of pieces.keys()) target.set(block, index * BLOCK_BYTES);
        return pieces.map(() => true);
      },
      captured: () => undefined,
    },
    blocks: 100,
    store,
    base: new Manifest(store, undefined, patience, undefined),
    journal: NO_JOURNAL,
    patience,
    onProgress: () => undefined,
    signal: new AbortController().signal,
  });
  const { snapshot_id } = await insertSnapshot(catalog, { root, data_blocks: 2 });
  const volumeId = await insertVolume(catalog);
  await catalog
    .updateTable('volumes')
    .set({ base_boundary: asEpoch(2), base_root: root })
    .execute();
  const forgotten: string[] = [];
  const logged: string[] = [];
  const keys = { open: async () => undefined } as unknown as DataKeys;
  const options = {
    catalog,
    store,
    keys,
    dataPlane: {
      stopping: false,
      afterHold: async () => undefined,
      async forgetHistory(volumeId: string) {
        forgotten.push(volumeId);
      },
    } as unknown as DataPlane,
    now: () => new Date(),
    log: (_: string, message: string) => void logged.push(message),
  };
  const scrubber = new Scrubber(options, { everyDays: 30, bytesPerSecond: 1e9 }, new Bases(options));
  assert.deepEqual(await scrubber.run(), []);
  assert.equal(scrubber.figures.bytes, 2 * BLOCK_BYTES);
  // A store that does not answer is no damage: what it has may be whole.
  store.beforeRequest = () => {
    throw new Error('away');
  };
  const named = [{ snapshotId: snapshot_id, volumeId, startTime: '', root, key: undefined }];
  const rootNow = async (): Promise<Sha256> => root;
  const { damage: unsure } = await verifySnapshots(store, named, realPatience(0), rootNow, () => undefined);
  assert.deepEqual([unsure.map(({ lost }) => lost), [...damagedFor(unsure)]], [[false], []]);
  store.beforeRequest = () => undefined;
  assert.deepEqual(forgotten, []);
  // Cut short, it is.
  const [packed] = [...store.objects].filter(([key]) => key.startsWith('packs/'));
  store.objects.set(packed[0], packed[1].subarray(0, 1000));
  const { damage: short } = await verifySnapshots(store, named, realPatience(60_000), rootNow, () => undefined);
  assert.deepEqual([short.map(({ lost }) => lost), [...damagedFor(short)]], [[true], [snapshot_id]]);
  store.objects.set(...packed);
  for (const [key, bytes] of store.objects) if (key.startsWith('packs/')) bytes[bytes.length >> 1] ^= 1;
  const [damage] = await scrubber.run();
  assert.match(damage.object, /^packs\//);
  assert.ok(damage.lost);
  // The volume's next snapshot must not name it.
  assert.deepEqual(forgotten, [volumeId]);
  const volume = await catalog.selectFrom('volumes').selectAll().executeTakeFirstOrThrow();
  assert.deepEqual([volume.base_boundary, volume.base_root], [NO_BASE, null]);
  assert.deepEqual(
    damage.affected.map((each) => each.snapshotId),
    [snapshot_id],
  );
  assert.ok(logged.some((line) => line.includes(snapshot_id)));
  assert.deepEqual([scrubber.figures.runs, scrubber.figures.damaged], [2, 1]);
  // Its bytes are read no faster than they may be.
  const slow = new Scrubber(options, { everyDays: 30, bytesPerSecond: 2 * BLOCK_BYTES }, new Bases(options));
  const running = slow.run();
  const first = await Promise.race([
    running.then(() => 'read'),
    new Promise((resolve) => setTimeout(resolve, 300, 'waiting')),
  ]);
  assert.equal(first, 'waiting');
  await catalog.deleteFrom('snapshots').execute();
  assert.deepEqual(await running, []);
});

test('a scrub that the end of a server cuts short tells what it has found, and goes on at the next start', async (t) => {
  const catalog = await openCatalog(`${temporaryDirectory(t)}/catalog.sqlite`);
  t.after(() => catalog.destroy());
  const store = new MemoryStore();
  const volumes = [knownId('vol', 'vol-00000001'), knownId('vol', 'vol-00000002'), knownId('vol', 'vol-00000003')];
  for (const volume_id of volumes) {
    const blocks = new Map([[1, randomBytes(BLOCK_BYTES)]]);
    const { root } = await run(store, cutOf(blocks, [1]), undefined);
    await insertSnapshot(catalog, { root, data_blocks: 1, volume_id });
  }
  const [first] = [...store.objects.keys()].filter((key) => key.startsWith('packs/'));
  store.objects.get(first)?.fill(0);
  const logged: string[] = [];
  const dataPlane = { stopping: false, afterHold: async () => undefined };
  const options = {
    catalog,
    store,
    keys: { open: async () => undefined } as unknown as DataKeys,
    dataPlane: dataPlane as unknown as DataPlane,
    now: () => new Date(),
    log: (_: string, message: string) => void logged.push(message),
  };
  const newScrubber = () => new Scrubber(options, { everyDays: 30, bytesPerSecond: 1e9 }, new Bases(options));
  const interrupted = newScrubber();
  const packs: string[] = [];
  store.beforeRequest = (request, key) => {
    if (request !== 'get' || !key.startsWith('packs/')) return;
    packs.push(key);
    if (packs.length > 1 && new Set(packs).size === 2) dataPlane.stopping = true;
  };
  await assert.rejects(interrupted.run(), /the server stops/);
  assert.equal(logged.filter((line) => line.includes(first)).length, 1);
  assert.equal(interrupted.figures.damaged, 1);
  dataPlane.stopping = false;
  packs.length = 0;
  store.beforeRequest = (request, key) => {
    if (request === 'get' && key.startsWith('packs/')) packs.push(key);
  };
  const next = newScrubber();
  await next.runWhenDue();
  assert.equal(next.figures.damaged, 1, 'what the last server has found');
  assert.deepEqual(await next.run(), []);
  assert.ok(packs.length === 2 && !packs.includes(first), 'what had been read was read again');
  assert.deepEqual([next.figures.runs, next.figures.damaged], [1, 1]);
  // And the one after that begins at the beginning.
  assert.equal((await next.run()).length, 1);
  assert.deepEqual([next.figures.runs, next.figures.damaged], [2, 1]);
});
