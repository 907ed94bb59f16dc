import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { copyFileSync, mkdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import {
  AttachVolumeCommand,
  CreateSnapshotCommand,
  CreateVolumeCommand,
  DeleteSnapshotCommand,
} from '@aws-sdk/client-ec2';
import { type Catalog, openCatalog } from '../../src/catalog/catalog.ts';
import type { CollectReport } from '../../src/lifecycle/repacker.ts';
import { StoreOwner } from '../../src/lifecycle/store-owner.ts';
import { UploadGate, type UploadKind } from '../../src/lifecycle/upload-gate.ts';
import { ended, launchInstance } from '../support/instances.ts';
import { MemoryStore } from '../support/memory-store.ts';
import { chooseSeed, seededRandom } from '../support/random.ts';
import { startTestServer, type TestServer } from '../support/server.ts';
import { storeBytes } from '../support/store-bytes.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';

const MIB = 1024 * 1024;

function collect(server: TestServer, remove = true): Promise<CollectReport> {
  return server.admin.ask<CollectReport>('collect', { remove });
}

/** Again and again, until it is let in between two uploads. */
async function collectSoon(server: TestServer): Promise<CollectReport> {
  for (;;) {
    const collected = await collect(server);
    if (collected.busy === undefined) return collected;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

async function snapshotOf(server: TestServer, volume: string): Promise<string> {
  const [done] = await ended(server.ec2, [await server.ec2.send(new CreateSnapshotCommand({ VolumeId: volume }))]);
  assert.equal(done.State, 'completed', done.StateMessage ?? '');
  return done.SnapshotId ?? '';
}

async function digestOf(server: TestServer, name: string, bytes: number): Promise<string> {
  const client = await server.connect(name);
  const hash = createHash('sha256');
  for (let at = 0; at < bytes; at += 4 * MIB) hash.update(await client.read(at, 4 * MIB));
  await client.close();
  return hash.digest('hex');
}

test('a collection frees what deleted snapshots alone needed, and nothing else', async (t) => {
  const server = await startTestServer(t);
  const objects = `${server.dataDir}/objects`;
  const instance = await launchInstance(server.ec2, [1]);
  const [volume] = instance.volumes;
  const client = await server.connect(volume);
  await client.write(0, randomBytes(20 * MIB));
  const first = await snapshotOf(server, volume);
  await client.write(5 * MIB, randomBytes(4 * MIB));
  const second = await snapshotOf(server, volume);
  await client.close();
  const before = await digestOf(server, second, 20 * MIB);
  assert.equal((await collect(server)).objects, 0, 'there is no garbage yet');

  await server.ec2.send(new DeleteSnapshotCommand({ SnapshotId: first }));
  const shown = await collect(server, false);
  assert.equal(shown.removed, false);
  const size = storeBytes(objects);
  await collectSoon(server);
  assert.equal(await digestOf(server, second, 20 * MIB), before);

  // The volume's base stays, whatever users delete: the next snapshot is incremental against it.
  await server.ec2.send(new DeleteSnapshotCommand({ SnapshotId: second }));
  await collectSoon(server);
  const third = await snapshotOf(server, volume);
  assert.equal(await digestOf(server, third, 20 * MIB), before);
  assert.ok(storeBytes(objects) <= size);

  // What a broken upload left behind.
  mkdirSync(`${objects}/packs/ff`, { recursive: true });
  writeFileSync(`${objects}/packs/ff/${'f'.repeat(32)}`, randomBytes(1000));
  const collected = await collectSoon(server);
  assert.deepEqual([collected.objects, collected.garbageBytes], [1, 1000]);
});

test('a volume that is still hydrating keeps what it needs of a deleted snapshot', async (t) => {
  const server = await startTestServer(t);
  const instance = await launchInstance(server.ec2, [1]);
  const client = await server.connect(instance.volumes[0]);
  for (let at = 0; at < 96 * MIB; at += 16 * MIB) await client.write(at, randomBytes(16 * MIB));
  await client.close();
  const snapshot = await snapshotOf(server, instance.volumes[0]);
  const made = await server.ec2.send(new CreateVolumeCommand({ AvailabilityZone: 'us-east-1a', SnapshotId: snapshot }));
  await server.ec2.send(new DeleteSnapshotCommand({ SnapshotId: snapshot }));
  await collectSoon(server);
  const copy = await snapshotOf(server, made.VolumeId ?? '');
  assert.equal(await digestOf(server, copy, 96 * MIB), await digestOf(server, instance.volumes[0], 96 * MIB));
});

test('a collection empties packs that are mostly dead, while a volume is restored from them and snapshots go on', async (t) => {
  const server = await startTestServer(t);
  const instance = await launchInstance(server.ec2, [1]);
  const encrypted = await server.ec2.send(
    new CreateVolumeCommand({ AvailabilityZone: 'us-east-1a', Size: 1, Encrypted: true }),
  );
  await server.ec2.send(
    new AttachVolumeCommand({
      VolumeId: encrypted.VolumeId,
      InstanceId: instance.instanceId,
      Device: '/dev/sdy',
    }),
  );
  for (const volume of [instance.volumes[0], encrypted.VolumeId ?? '']) {
    const client = await server.connect(volume);
    await client.write(0, randomBytes(32 * MIB));
    const first = await snapshotOf(server, volume);
    await client.write(0, randomBytes(14 * MIB));
    await client.write(16 * MIB, randomBytes(14 * MIB));
    const second = await snapshotOf(server, volume);
    const before = await digestOf(server, second, 32 * MIB);
    await server.ec2.send(new DeleteSnapshotCommand({ SnapshotId: first }));
    const restoring = await server.ec2.send(
      new CreateVolumeCommand({ AvailabilityZone: 'us-east-1a', SnapshotId: second }),
    );
    // Hydrated in a moment; from then on its packs are no longer in use by their old names.
    for (let packs = 0; packs === 0; ) packs = (await collectSoon(server)).repacked?.packs ?? 0;
    assert.equal(await digestOf(server, second, 32 * MIB), before, 'the snapshot');
    const again = await snapshotOf(server, restoring.VolumeId ?? '');
    assert.equal(await digestOf(server, again, 32 * MIB), before, 'the volume made of it');
    // The base of the volume was written anew, too: what comes next is incremental against it.
    await client.write(0, Buffer.alloc(512 * 1024, 7));
    const third = await snapshotOf(server, volume);
    assert.equal(await digestOf(server, third, 32 * MIB), await digestOf(server, volume, 32 * MIB));
    await client.close();
  }
});

test('collections among snapshots, deletions and restores never take what is needed', async (t) => {
  const seed = chooseSeed();
  t.diagnostic(`seed ${seed}`);
  const random = seededRandom(seed);
  const server = await startTestServer(t);
  const instance = await launchInstance(server.ec2, [1]);
  const [volume] = instance.volumes;
  const client = await server.connect(volume);
  const alive = new Map<string, string>();
  let stopping = false;
  let collections = 0;
  const collecting = (async () => {
    while (!stopping) {
      if ((await collect(server)).busy === undefined) collections += 1;
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  })();
  for (let round = 0; round < 25; round += 1) {
    for (let write = 0; write < 4; write += 1) {
      // The same bytes come back again and again, so that manifests' nodes do.
      const bytes = Buffer.alloc(MIB, `content ${Math.floor(random() * 3)} `);
      await client.write(Math.floor(random() * 15) * MIB, bytes);
    }
    const digest = await digestOf(server, volume, 16 * MIB);
    alive.set(await snapshotOf(server, volume), digest);
    for (const id of [...alive.keys()]) {
      if (random() > 0.4) continue;
      await server.ec2.send(new DeleteSnapshotCommand({ SnapshotId: id }));
      alive.delete(id);
    }
  }
  stopping = true;
  await collecting;
  await client.close();
  t.diagnostic(`${collections} collections, ${alive.size} snapshots left`);
  assert.ok(collections > 3);
  for (const [id, digest] of alive) assert.equal(await digestOf(server, id, 16 * MIB), digest, `seed ${seed}: ${id}`);
});

test('nothing is collected from a store that belongs to another server, or while what is live cannot be read', async (t) => {
  const server = await startTestServer(t);
  const objects = `${server.dataDir}/objects`;
  const instance = await launchInstance(server.ec2, [1]);
  const client = await server.connect(instance.volumes[0]);
  await client.write(0, randomBytes(MIB));
  await client.close();
  await snapshotOf(server, instance.volumes[0]);
  writeFileSync(`${objects}/packs/stray`, 'x');
  writeFileSync(`${objects}/owner.json`, JSON.stringify({ serverId: 'another' }));
  await assert.rejects(collect(server), /belongs to another server/);
  rmSync(`${objects}/owner.json`);
  await assert.rejects(collect(server), /names no owner/);
  assert.ok(statSync(`${objects}/packs/stray`).size === 1);
});

test('uploads and collections keep out of each other’s way', async () => {
  const gate = new UploadGate();
  let uploading = 0;
  let collecting = 0;
  let collections = 0;
  const check = (): void => assert.ok(collecting === 0 || uploading === 0, 'both at once');
  const upload = async (kind: UploadKind): Promise<void> => {
    for (let round = 0; round < 50; round += 1) {
      await gate.upload(kind, async () => {
        uploading += 1;
        check();
        await new Promise(setImmediate);
        check();
        uploading -= 1;
      });
      await new Promise(setImmediate);
    }
  };
  const collectAll = async (collect: UploadGate['collect']): Promise<void> => {
    for (let round = 0; round < 200; round += 1) {
      await collect(async () => {
        collecting += 1;
        collections += 1;
        check();
        await new Promise(setImmediate);
        check();
        collecting -= 1;
      });
      await new Promise(setImmediate);
    }
  };
  await Promise.all([upload('snapshot'), upload('request'), collectAll((work) => gate.collect(work))]);
  assert.ok(collections > 0);
  collections = 0;
  const insisting = collectAll((work) => gate.collectAfterUploads(60_000, work));
  await Promise.all([upload('snapshot'), upload('snapshot'), upload('request'), insisting]);
  assert.equal(collections, 200);
});

test('a collection that insists lets no snapshot’s upload begin, but those of blocks; and not for ever', async () => {
  const gate = new UploadGate();
  const first = Promise.withResolvers<void>();
  const done: string[] = [];
  const upload = (kind: UploadKind, name: string, end: Promise<void>): Promise<void> =>
    gate.upload(kind, async () => {
      await end;
      done.push(name);
    });
  const uploads = [upload('snapshot', 'the first', first.promise)];
  assert.equal(await gate.collect(async () => 'a collection'), undefined);
  assert.equal(await gate.collectAfterUploads(1, async () => 'a collection'), undefined);
  uploads.push(upload('snapshot', 'beside it', Promise.resolve()));
  await uploads[1];
  const collecting = gate.collectAfterUploads(60_000, async () => done.push('the collection'));
  assert.equal(await gate.collectAfterUploads(60_000, async () => 'a second'), undefined);
  uploads.push(upload('snapshot', 'a later one', Promise.resolve()));
  await upload('request', 'a block', Promise.resolve());
  first.resolve();
  await Promise.all([collecting, ...uploads]);
  assert.deepEqual(done, ['beside it', 'a block', 'the first', 'the collection', 'a later one']);
  assert.equal(gate.busy, false);
});

test('a collection that is asked for while a new store is being claimed waits until it is', async (t) => {
  const catalog = await openCatalog(`${temporaryDirectory(t)}/catalog.sqlite`);
  t.after(() => catalog.destroy());
  const store = new MemoryStore();
  const claimed = Promise.withResolvers<void>();
  store.beforeRequest = (request) => (request === 'put' ? claimed.promise : undefined);
  const owner = new StoreOwner(catalog, store);
  await assert.rejects(owner.require(), /names no owner/);
  const claiming = owner.claim();
  const required = owner.require();
  await new Promise(setImmediate);
  claimed.resolve();
  await Promise.all([claiming, required]);
  // A claim that fails is no claim, and can be made again.
  store.objects.clear();
  store.beforeRequest = (request) => {
    if (request === 'put') throw new Error('no room');
  };
  const late = new StoreOwner(catalog, store);
  await assert.rejects(late.claim(), /no room/);
  await assert.rejects(late.require(), /names no owner/);
  store.beforeRequest = () => undefined;
  await late.claim();
  await late.require();
  // Another's is told of, once.
  await store.put('owner.json', [Buffer.from('{"serverId":"another"}')]);
  const stranger = new StoreOwner(catalog, store);
  await assert.rejects(stranger.claim(), /belongs to another server/);
  await stranger.claim();
});

test('of a server and its copy one is shut out of their store; one whose start was cut off is not', async (t) => {
  const directory = temporaryDirectory(t);
  const open = (name: string): Promise<Catalog> => openCatalog(`${directory}/${name}.sqlite`);
  const store = new MemoryStore();
  /** As a start does. */
  const claimed = async (catalog: Catalog): Promise<StoreOwner> => {
    const owner = new StoreOwner(catalog, store);
    await owner.claim();
    return owner;
  };
  const first = await open('first');
  await claimed(first);
  await (await claimed(first)).require();
  await first.destroy();
  copyFileSync(`${directory}/first.sqlite`, `${directory}/copy.sqlite`);

  const [original, copy] = [await open('first'), await open('copy')];
  t.after(() => Promise.all([original.destroy(), copy.destroy()]));
  const beside = await claimed(original);
  await assert.rejects(claimed(copy), /a copy of this one/);
  await beside.require();
  await (await claimed(original)).require();
  // A rebuild with the copy's data makes the store its own: the original is shut out then, also when it starts again.
  await new StoreOwner(copy, store).takeOver();
  await assert.rejects(beside.require(), /a copy of this one/);
  await assert.rejects(claimed(original), /a copy of this one/);
  await (await claimed(copy)).require();

  store.beforeRequest = (request) => {
    if (request === 'put') throw new Error('away');
  };
  for (const _ of [1, 2]) {
    const cutOff = new StoreOwner(copy, store);
    await assert.rejects(cutOff.claim(), /away/);
    await cutOff.require();
  }
  store.beforeRequest = () => undefined;
  await (await claimed(copy)).require();
  await assert.rejects(claimed(original), /a copy of this one/);
});
