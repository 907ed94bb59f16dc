/** What an operator does wrong at 3 a.m. must not cost what only the bucket has: keys, saved catalogs, snapshots' bytes. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { test } from 'node:test';
import { pathToFileURL } from 'node:url';
import {
  AttachVolumeCommand,
  CreateSnapshotCommand,
  CreateTagsCommand,
  CreateVolumeCommand,
  DeleteTagsCommand,
  DescribeSnapshotAttributeCommand,
  DescribeSnapshotsCommand,
  ModifySnapshotAttributeCommand,
} from '@aws-sdk/client-ec2';
import { openCatalog } from '../../src/catalog/catalog.ts';
import type { ObjectStore } from '../../src/objects/object-store.ts';
import { openObjectStore } from '../../src/objects/open-store.ts';
import { type Rebuilt, rebuild } from '../../src/server/rebuild.ts';
import type { SnapshotId } from '../../src/types/ids.ts';
import type { Sha256 } from '../../src/types/units.ts';
import { ended, launchInstance } from '../support/instances.ts';
import { startTestServer, type TestServer } from '../support/server.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';
import { tool } from '../support/tools.ts';

const CLEANCUT = new URL('../../bin/cleancut.js', import.meta.url).pathname;
const SAVE_OFTEN = ['--catalog-backup-minutes', '0.02'];
const ZONE = 'us-east-1a';
const MIB = 1024 * 1024;

type Bucket = { path: string; flags: string[]; store: () => Promise<ObjectStore> };

function newBucket(path: string): Bucket {
  mkdirSync(path, { recursive: true });
  const { href } = pathToFileURL(path);
  return { path, flags: ['--object-store', href], store: () => openObjectStore(href) };
}

function savedCatalogs({ path }: Bucket): string[] {
  return existsSync(`${path}/catalog`) ? readdirSync(`${path}/catalog`).sort() : [];
}

/** Waits for a copy of the catalog that was begun after this. */
async function savedAnew(bucket: Bucket): Promise<void> {
  const before = new Set(savedCatalogs(bucket));
  while (savedCatalogs(bucket).filter((name) => !before.has(name)).length < 2)
    await new Promise((resolve) => setTimeout(resolve, 50));
}

async function written(server: TestServer, volume: string, bytes: Buffer, at = 0): Promise<void> {
  const client = await server.connect(volume);
  await client.write(at, bytes);
  await client.close();
}

async function read(server: TestServer, name: string, length: number): Promise<Buffer> {
  const client = await server.connect(name);
  const bytes = await client.read(0, length);
  await client.close();
  return bytes;
}

async function attachedVolume(server: TestServer, encrypted: boolean): Promise<string> {
  const { instanceId } = await launchInstance(server.ec2, []);
  const made = await server.ec2.send(
    new CreateVolumeCommand({ AvailabilityZone: ZONE, Size: 1, Encrypted: encrypted }),
  );
  const VolumeId = made.VolumeId ?? '';
  await server.ec2.send(new AttachVolumeCommand({ VolumeId, InstanceId: instanceId, Device: '/dev/sdf' }));
  return VolumeId;
}

async function snapshotOf(server: TestServer, VolumeId: string): Promise<string> {
  const [done] = await ended(server.ec2, [await server.ec2.send(new CreateSnapshotCommand({ VolumeId }))]);
  assert.equal(done.State, 'completed', done.StateMessage ?? '');
  return done.SnapshotId ?? '';
}

test('a server that comes back after it was rebuilt elsewhere collects nothing, and saves no catalog', async (t) => {
  const bucket = newBucket(`${temporaryDirectory(t)}/objects`);
  const lost = await startTestServer(t, { flags: [...bucket.flags, ...SAVE_OFTEN] });
  const snapshot = await snapshotOf(lost, await attachedVolume(lost, false));
  await savedAnew(bucket);
  await lost.kill();
  const dataDir = temporaryDirectory(t);
  await tool(process.execPath, [CLEANCUT, 'rebuild', ...bucket.flags, '--data-dir', dataDir]);
  const rebuilt = await startTestServer(t, { dataDir, flags: bucket.flags });

  const back = await startTestServer(t, { dataDir: lost.dataDir, flags: [...bucket.flags, ...SAVE_OFTEN] });
  await assert.rejects(back.admin.ask('collect', { remove: true }), /a copy of this one/);
  for (let tries = 0; !/the catalog could not be saved/.test(back.log()); tries += 1) {
    assert.ok(tries < 600, 'it is not said that no catalog is saved');
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  const { Snapshots = [] } = await rebuilt.ec2.send(new DescribeSnapshotsCommand({ SnapshotIds: [snapshot] }));
  assert.equal(Snapshots[0].State, 'completed');
  const { busy, objects } = await rebuilt.admin.ask<{ busy?: string; objects: number }>('collect', { remove: true });
  assert.deepEqual([busy, objects], [undefined, 0]);
});

test('a new server on the bucket of one that is lost overwrites neither its keys nor its saved catalogs; a rebuild has all of them', async (t) => {
  const bucket = newBucket(`${temporaryDirectory(t)}/objects`);
  const lost = await startTestServer(t, { flags: bucket.flags });
  const volume = await attachedVolume(lost, true);
  const bytes = randomBytes(100_000);
  await written(lost, volume, bytes);
  const snapshot = await snapshotOf(lost, volume);
  await lost.admin.ask('create-user', { accountId: '000000000002', userName: 'ann' });
  await lost.stop();
  const keyFile = `${temporaryDirectory(t)}/key`;
  copyFileSync(`${lost.dataDir}/keyring.key`, keyFile);
  rmSync(lost.dataDir, { recursive: true });
  const [keyring, saved] = [readFileSync(`${bucket.path}/keyring.json`), savedCatalogs(bucket)];

  // In a hurry: no rebuild.
  const hasty = await startTestServer(t, { flags: [...bucket.flags, ...SAVE_OFTEN] });
  await assert.rejects(attachedVolume(hasty, true), { name: 'InvalidKMSKey.InvalidState', message: /another keyring/ });
  await snapshotOf(hasty, await attachedVolume(hasty, false));
  while (!/the catalog could not be saved/.test(hasty.log())) await new Promise((resolve) => setTimeout(resolve, 50));
  assert.match(hasty.log(), /belongs to another server.*cleancut rebuild/);
  await hasty.stop();
  assert.ok(readFileSync(`${bucket.path}/keyring.json`).equals(keyring));
  assert.deepEqual(savedCatalogs(bucket), saved);

  const dataDir = temporaryDirectory(t);
  await tool(process.execPath, [CLEANCUT, 'rebuild', ...bucket.flags, '--data-dir', dataDir]);
  const again = await startTestServer(t, { dataDir, flags: [...bucket.flags, '--key-file', keyFile] });
  assert.ok((await read(again, snapshot, bytes.length)).equals(bytes));
  const { users } = await again.admin.ask<{ users: { userName: string }[] }>('list-users');
  assert.ok(users.some(({ userName }) => userName === 'ann'));
  // Its own from here on.
  await attachedVolume(again, true);
});

test('a rebuild that is cut short is begun anew by the next, with volumes, users and all', async (t) => {
  const bucket = newBucket(`${temporaryDirectory(t)}/objects`);
  const server = await startTestServer(t, { flags: bucket.flags });
  const volume = await attachedVolume(server, false);
  const bytes = randomBytes(100_000);
  await written(server, volume, bytes);
  const snapshot = await snapshotOf(server, volume);
  await server.stop();
  // Someone else's log beside a catalog that is gone would be applied to the one that comes.
  const dataDir = temporaryDirectory(t);
  writeFileSync(`${dataDir}/catalog.sqlite-wal`, randomBytes(5000));

  const store = await bucket.store();
  const broken: ObjectStore = {
    url: store.url,
    put: (key, pieces) => store.put(key, pieces),
    get: (key) => store.get(key),
    getRange: (key, offset, length) => store.getRange(key, offset, length),
    remove: (keys) => store.remove(keys),
    removeFolder: (folder) => store.removeFolder(folder),
    removeUnfinished: () => store.removeUnfinished(),
    async *list(prefix) {
      yield* store.list(prefix);
      if (prefix === 'snapshots/') throw new Error('the store went away');
    },
  };
  await assert.rejects(
    rebuild(dataDir, broken, false, () => undefined),
    /went away/,
  );
  assert.ok(!existsSync(`${dataDir}/catalog.sqlite`), 'half a catalog is in the place of a whole one');
  // Copies that cannot be read are passed over, and told of.
  const bad = 'catalog/9999-01-01T00:00:00.000Z.sqlite.zst';
  await store.put(bad, [Buffer.from('not compressed')]);
  const rebuilt = await rebuild(dataDir, store, false, () => undefined);
  assert.deepEqual(
    rebuilt.unreadable.map(({ key }) => key),
    [bad],
  );
  assert.deepEqual(
    rebuilt.volumes.map(({ volumeId, fromSnapshot }) => [volumeId, fromSnapshot]).filter(([id]) => id === volume),
    [[volume, snapshot]],
  );
  const again = await startTestServer(t, { dataDir, flags: bucket.flags });
  assert.ok((await read(again, snapshot, bytes.length)).equals(bytes));
});

test('after a rebuild nobody may use a snapshot who was shut out since the catalog was saved, and tags are the latest', async (t) => {
  const bucket = newBucket(`${temporaryDirectory(t)}/objects`);
  const server = await startTestServer(t, { flags: [...bucket.flags, ...SAVE_OFTEN] });
  const { volumes } = await launchInstance(server.ec2, [1]);
  const SnapshotId = await snapshotOf(server, volumes[0]);
  const share = (OperationType: 'add' | 'remove', user: string) =>
    server.ec2.send(new ModifySnapshotAttributeCommand({ SnapshotId, OperationType, UserIds: [user] }));
  await share('add', '000000000002');
  await server.ec2.send(new CreateTagsCommand({ Resources: [SnapshotId], Tags: [{ Key: 'old', Value: '1' }] }));
  await savedAnew(bucket);
  await share('remove', '000000000002');
  await share('add', '000000000003');
  await server.ec2.send(new DeleteTagsCommand({ Resources: [SnapshotId], Tags: [{ Key: 'old' }] }));
  await server.ec2.send(new CreateTagsCommand({ Resources: [SnapshotId], Tags: [{ Key: 'new', Value: '2' }] }));
  await server.kill();
  // From each of the copies, the one before all that among them, as if it were the last.
  const stale = savedCatalogs(bucket);
  const directory = temporaryDirectory(t);
  let found = '';
  for (const name of stale) {
    const alone = newBucket(`${directory}/${name}`);
    cpSync(bucket.path, alone.path, { recursive: true });
    for (const other of stale) if (other !== name) rmSync(`${alone.path}/catalog/${other}`);
    const dataDir = temporaryDirectory(t);
    const { catalog: key } = await rebuild(dataDir, await alone.store(), false, () => undefined);
    assert.equal(key, `catalog/${name}`);
    const catalog = await openCatalog(`${dataDir}/catalog.sqlite`);
    const grantees = await catalog.selectFrom('snapshot_permissions').select('grantee').execute();
    const tags = await catalog.selectFrom('tags').select('tag_key').where('resource_id', '=', SnapshotId).execute();
    await catalog.destroy();
    assert.deepEqual(
      [grantees.map(({ grantee }) => grantee), tags.map(({ tag_key }) => tag_key)],
      [['000000000003'], ['new']],
      name,
    );
    found = dataDir;
  }
  const again = await startTestServer(t, { dataDir: found, flags: bucket.flags });
  const shown = await again.ec2.send(
    new DescribeSnapshotAttributeCommand({ SnapshotId, Attribute: 'createVolumePermission' }),
  );
  assert.deepEqual(shown.CreateVolumePermissions, [{ UserId: '000000000003' }]);
});

test('a catalog that does not know all that the bucket holds collects nothing: put back from an older copy, or rebuilt while a record could not be read', async (t) => {
  const bucket = newBucket(`${temporaryDirectory(t)}/objects`);
  const dataDir = temporaryDirectory(t);
  let server = await startTestServer(t, { dataDir, flags: bucket.flags });
  const { volumes } = await launchInstance(server.ec2, [1]);
  await snapshotOf(server, volumes[0]);
  await server.stop();
  const older = `${temporaryDirectory(t)}/older`;
  copyFileSync(`${dataDir}/catalog.sqlite`, older);
  server = await startTestServer(t, { dataDir, flags: bucket.flags });
  const bytes = randomBytes(600_000);
  await written(server, volumes[0], bytes);
  const newer = await snapshotOf(server, volumes[0]);
  await server.stop();
  copyFileSync(older, `${dataDir}/catalog.sqlite`);

  const packs = readdirSync(`${bucket.path}/packs`, { recursive: true });
  const collect = (at: TestServer): Promise<{ objects: number }> => at.admin.ask('collect', { remove: true });
  server = await startTestServer(t, { dataDir, flags: bucket.flags });
  await assert.rejects(collect(server), /a copy of this one/);
  await server.stop();
  assert.deepEqual(readdirSync(`${bucket.path}/packs`, { recursive: true }), packs);

  // Unreadable for the moment.
  const record = `${bucket.path}/snapshots/${newer}.json`;
  const text = readFileSync(record);
  writeFileSync(record, 'half of it');
  const again = async (): Promise<Rebuilt> => rebuild(dataDir, await bucket.store(), false, () => undefined);
  assert.equal((await again()).unreadable.length, 1);
  server = await startTestServer(t, { dataDir, flags: bucket.flags });
  await assert.rejects(collect(server), new RegExp(`record of ${newer}, which this server's catalog does not know`));
  await server.stop();
  writeFileSync(record, text);
  assert.equal((await again()).snapshots, 1);
  server = await startTestServer(t, { dataDir, flags: bucket.flags });
  assert.ok((await read(server, newer, bytes.length)).equals(bytes));
  await collect(server);
  assert.ok((await read(server, newer, bytes.length)).equals(bytes));
  const { Snapshots = [] } = await server.ec2.send(new DescribeSnapshotsCommand({ OwnerIds: ['self'] }));
  assert.equal(Snapshots.length, 2);
  // The volume has forgotten what changed since the older catalog's last snapshot: the next compares all of it.
  await written(server, volumes[0], randomBytes(5000), 8 * MIB);
  assert.ok((await read(server, await snapshotOf(server, volumes[0]), bytes.length)).equals(bytes));
});

test('a server is not started on another object store than before, by a slip: but where that one is lost, on purpose', async (t) => {
  const [bucket, other] = [
    newBucket(`${temporaryDirectory(t)}/objects`),
    newBucket(`${temporaryDirectory(t)}/objekts`),
  ];
  const dataDir = temporaryDirectory(t);
  const server = await startTestServer(t, { dataDir, flags: bucket.flags });
  const { volumes } = await launchInstance(server.ec2, [1]);
  const bytes = randomBytes(600_000);
  await written(server, volumes[0], bytes);
  await snapshotOf(server, volumes[0]);
  await server.stop();
  const elsewhere = (): Promise<TestServer> => startTestServer(t, { dataDir, flags: other.flags });
  await assert.rejects(elsewhere(), /objekts is not the object store of before.*cleancut rebuild/);
  assert.deepEqual(readdirSync(other.path), []);
  // One that cannot be asked keeps nobody from his volumes.
  const away = ['--object-store', 's3://bucket?endpoint=http://127.0.0.1:9&region=us-east-1'];
  const environment = { AWS_ACCESS_KEY_ID: 'none', AWS_SECRET_ACCESS_KEY: 'none' };
  const without = await startTestServer(t, { dataDir, flags: away, environment });
  assert.ok((await read(without, volumes[0], bytes.length)).equals(bytes));
  await without.stop();
  await (await startTestServer(t, { dataDir, flags: bucket.flags })).stop();

  await rebuild(dataDir, await other.store(), false, () => undefined);
  const moved = await elsewhere();
  const [lost] = await ended(moved.ec2, [await moved.ec2.send(new CreateSnapshotCommand({ VolumeId: volumes[0] }))]);
  assert.equal(lost.State, 'error');
  assert.ok((await read(moved, await snapshotOf(moved, volumes[0]), bytes.length)).equals(bytes));
});

test('a set of which the bucket has a part is told of', async (t) => {
  const bucket = newBucket(`${temporaryDirectory(t)}/objects`);
  const server = await startTestServer(t, { flags: bucket.flags });
  const { volumes } = await launchInstance(server.ec2, [1]);
  const SnapshotId = await snapshotOf(server, volumes[0]);
  await server.stop();
  const path = `${bucket.path}/snapshots/${SnapshotId}.json`;
  const record = JSON.parse(readFileSync(path, 'utf8')) as { setId: string; setSnapshotIds: string[] };
  writeFileSync(path, JSON.stringify({ ...record, setSnapshotIds: [...record.setSnapshotIds, 'snap-00000000'] }));
  const { partialSets } = await rebuild(temporaryDirectory(t), await bucket.store(), false, () => undefined);
  assert.deepEqual(partialSets, [{ setId: record.setId, snapshots: 1, of: 2 }]);
});

test('a rebuild into a directory with another keyring says so, and leaves both as they are', async (t) => {
  const bucket = newBucket(`${temporaryDirectory(t)}/objects`);
  const server = await startTestServer(t, { flags: bucket.flags });
  const bytes = randomBytes(50_000);
  const volume = await attachedVolume(server, true);
  await written(server, volume, bytes);
  const snapshot = await snapshotOf(server, volume);
  await server.stop();
  const other = await startTestServer(t);
  await attachedVolume(other, true);
  await other.stop();
  const own = readFileSync(`${other.dataDir}/keyring.json`);
  const intoOther = async (): Promise<Rebuilt> => rebuild(other.dataDir, await bucket.store(), true, () => undefined);
  const [{ key, why }] = (await intoOther()).unreadable;
  assert.equal(key, 'keyring.json');
  assert.match(why, /another keyring than the bucket's/);
  assert.ok(readFileSync(`${other.dataDir}/keyring.json`).equals(own));
  renameSync(`${other.dataDir}/keyring.json`, `${other.dataDir}/elsewhere`);
  assert.deepEqual((await intoOther()).unreadable, []);
  copyFileSync(`${server.dataDir}/keyring.key`, `${other.dataDir}/keyring.key`);
  rmSync(`${other.dataDir}/catalog.sqlite`);
  await rebuild(other.dataDir, await bucket.store(), true, () => undefined);
  const again = await startTestServer(t, { dataDir: other.dataDir, flags: bucket.flags });
  assert.ok((await read(again, snapshot, bytes.length)).equals(bytes));
});

test('a catalog that names manifests which were written anew since, and are gone: a rebuild finds them by their records', async (t) => {
  const bucket = newBucket(`${temporaryDirectory(t)}/objects`);
  const server = await startTestServer(t, { flags: bucket.flags });
  const { volumes } = await launchInstance(server.ec2, [1]);
  const bytes = randomBytes(MIB);
  await written(server, volumes[0], bytes);
  const [moved, left] = [await snapshotOf(server, volumes[0]), await snapshotOf(server, volumes[0])];
  await server.stop();
  const older = await openCatalog(`${server.dataDir}/catalog.sqlite`);
  await older
    .updateTable('snapshots')
    .set({ root: '0'.repeat(64) as Sha256 })
    .where('snapshot_id', '=', moved as SnapshotId)
    .execute();
  await older.destroy();
  const store = await bucket.store();
  const rebuilt = await rebuild(server.dataDir, store, false, () => undefined);
  assert.deepEqual([rebuilt.snapshots, rebuilt.known], [1, 1]);
  const again = await startTestServer(t, { dataDir: server.dataDir, flags: bucket.flags });
  for (const snapshot of [moved, left]) assert.ok((await read(again, snapshot, bytes.length)).equals(bytes));
});
