import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { closeSync, cpSync, existsSync, openSync, readdirSync, readFileSync, readSync, writeFileSync } from 'node:fs';
import { DatabaseSync } from 'node:sqlite';
import { after, before, test } from 'node:test';
import {
  CompleteSnapshotCommand,
  EBSClient,
  ListSnapshotBlocksCommand,
  PutSnapshotBlockCommand,
  StartSnapshotCommand,
  type StartSnapshotCommandInput,
} from '@aws-sdk/client-ebs';
import {
  CopySnapshotCommand,
  CreateTagsCommand,
  CreateVolumeCommand,
  DeleteSnapshotCommand,
  DeregisterImageCommand,
  DescribeSnapshotsCommand,
  DescribeSnapshotTierStatusCommand,
  ModifySnapshotTierCommand,
  RegisterImageCommand,
  type RegisterImageCommandInput,
  RestoreSnapshotTierCommand,
  type RestoreSnapshotTierCommandInput,
  type Snapshot,
  type SnapshotTierStatus,
} from '@aws-sdk/client-ec2';
import type { Rebuilt } from '../../src/server/rebuild.ts';
import { newId } from '../../src/types/ids.ts';
import { BLOCK_BYTES } from '../../src/types/units.ts';
import { FileCleanup } from '../support/cleanup.ts';
import { ended } from '../support/instances.ts';
import { readCredentials, startTestServer, type TestServer } from '../support/server.ts';
import { sha256Base64 } from '../support/signed-request.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';
import { tool } from '../support/tools.ts';

const CLEANCUT = new URL('../../bin/cleancut.js', import.meta.url).pathname;
const DAY = 24 * 3_600_000;
const BLOCKS = 3;
const ARCHIVED = { name: 'IncorrectState', message: /archive tier/ };

let server: TestServer;
let ebs: EBSClient;
const file = new FileCleanup();
const archive = temporaryDirectory(file);
const objects = temporaryDirectory(file);
const flags = ['--object-store', `file://${objects}`, '--archive-store', `file://${archive}`];
function newEbs(): EBSClient {
  const credentials = readCredentials(server.dataDir);
  return new EBSClient({ region: 'us-east-1', endpoint: server.apiUrl, credentials, maxAttempts: 1 });
}
before(async () => {
  server = await startTestServer(file, { flags });
  ebs = newEbs();
});
after(async () => {
  ebs.destroy();
  await server.stop();
  file.run();
});

/** A snapshot of no volume, whose bytes nothing else keeps. */
async function oneSnapshot(more: Partial<StartSnapshotCommandInput> = {}): Promise<{ id: string; bytes: Buffer }> {
  const { SnapshotId: id = '' } = await ebs.send(new StartSnapshotCommand({ VolumeSize: 1, ...more }));
  const bytes = randomBytes(BLOCKS * BLOCK_BYTES);
  for (let index = 0; index < BLOCKS; index += 1) {
    const block = bytes.subarray(index * BLOCK_BYTES, (index + 1) * BLOCK_BYTES);
    await ebs.send(
      new PutSnapshotBlockCommand({
        SnapshotId: id,
        BlockIndex: index,
        BlockData: block,
        DataLength: BLOCK_BYTES,
        Checksum: sha256Base64(block),
        ChecksumAlgorithm: 'SHA256',
      }),
    );
  }
  await ebs.send(new CompleteSnapshotCommand({ SnapshotId: id, ChangedBlocksCount: BLOCKS }));
  await ended(server.ec2, [{ SnapshotId: id }]);
  return { id, bytes };
}

const moveAway = (SnapshotId: string) =>
  server.ec2.send(new ModifySnapshotTierCommand({ SnapshotId, StorageTier: 'archive' }));
const bringBack = (SnapshotId: string, how: Omit<RestoreSnapshotTierCommandInput, 'SnapshotId'>) =>
  server.ec2.send(new RestoreSnapshotTierCommand({ SnapshotId, ...how }));

async function described(id: string): Promise<Snapshot> {
  const { Snapshots = [] } = await server.ec2.send(new DescribeSnapshotsCommand({ SnapshotIds: [id] }));
  return Snapshots[0];
}

async function statusOf(id: string): Promise<SnapshotTierStatus> {
  const Filters = [{ Name: 'snapshot-id', Values: [id] }];
  const { SnapshotTierStatuses = [] } = await server.ec2.send(new DescribeSnapshotTierStatusCommand({ Filters }));
  assert.equal(SnapshotTierStatuses.length, 1);
  return SnapshotTierStatuses[0];
}

/** When it is no longer being moved. */
async function settled(id: string): Promise<SnapshotTierStatus> {
  for (const before = Date.now(); ; ) {
    const status = await statusOf(id);
    if (!status.LastTieringOperationStatus?.endsWith('in-progress')) return status;
    assert.ok(Date.now() - before < 30_000, `${id} is still being moved`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

async function assertHolds(id: string, bytes: Buffer): Promise<void> {
  const client = await server.connect(id);
  for (let at = 0; at < bytes.length; at += BLOCK_BYTES) {
    assert.ok((await client.read(at, BLOCK_BYTES)).equals(bytes.subarray(at, at + BLOCK_BYTES)), `${id} at ${at}`);
  }
  await client.close();
}

/** Changes what the server's catalog says while no server runs. */
async function withStoppedServer(change: (catalog: DatabaseSync) => void): Promise<void> {
  const { dataDir } = server;
  await server.stop();
  const catalog = new DatabaseSync(`${dataDir}/catalog.sqlite`);
  change(catalog);
  catalog.close();
  server = await startTestServer(file, { dataDir, flags });
  ebs.destroy();
  ebs = newEbs();
}

function packsIn(directory: string): string[] {
  if (!existsSync(`${directory}/packs`)) return [];
  return readdirSync(`${directory}/packs`, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => entry.name);
}

test('a snapshot is archived: it takes no room in the object store, and cannot be used; restored, it holds what it held', async () => {
  const { id, bytes } = await oneSnapshot();
  assert.deepEqual([(await described(id)).StorageTier, (await statusOf(id)).StorageTier], ['standard', 'standard']);
  assert.equal((await statusOf(id)).LastTieringOperationStatus, undefined);
  const asked = await moveAway(id);
  assert.equal(asked.SnapshotId, id);
  const status = await settled(id);
  assert.deepEqual(
    [status.LastTieringOperationStatus, status.LastTieringProgress, status.StorageTier, status.Status],
    ['archival-completed', 100, 'archive', 'completed'],
  );
  assert.deepEqual(status.LastTieringStartTime, asked.TieringStartTime);
  assert.ok(Number(status.ArchivalCompleteTime) >= Number(asked.TieringStartTime));
  const shown = await described(id);
  assert.deepEqual(
    [shown.State, shown.Progress, shown.StorageTier, shown.FullSnapshotSizeInBytes],
    ['completed', '100%', 'archive', BLOCKS * BLOCK_BYTES],
  );
  const movedBy = async (...Values: string[]): Promise<(string | undefined)[]> => {
    const Filters = [{ Name: 'last-tiering-operation', Values }];
    const { SnapshotTierStatuses = [] } = await server.ec2.send(new DescribeSnapshotTierStatusCommand({ Filters }));
    return SnapshotTierStatuses.map(({ SnapshotId }) => SnapshotId);
  };
  assert.deepEqual(await movedBy('archival-completed', 'archival-failed'), [id]);
  assert.deepEqual(await movedBy('permanent-restore-*'), []);
  const Filters = [{ Name: 'storage-tier', Values: ['archive'] }];
  const { Snapshots: archived = [] } = await server.ec2.send(new DescribeSnapshotsCommand({ Filters }));
  assert.deepEqual(
    archived.map(({ SnapshotId }) => SnapshotId),
    [id],
  );

  const volume = new CreateVolumeCommand({ AvailabilityZone: 'us-east-1a', SnapshotId: id });
  await assert.rejects(server.ec2.send(volume), ARCHIVED);
  const copy = new CopySnapshotCommand({ SourceRegion: 'us-east-1', SourceSnapshotId: id });
  await assert.rejects(server.ec2.send(copy), ARCHIVED);
  await assert.rejects(server.ec2.send(new RegisterImageCommand(imageOf(id))), ARCHIVED);
  const invalid = { name: 'ValidationException', message: /archived/ };
  await assert.rejects(ebs.send(new ListSnapshotBlocksCommand({ SnapshotId: id })), invalid);
  await assert.rejects(ebs.send(new StartSnapshotCommand({ VolumeSize: 1, ParentSnapshotId: id })), invalid);
  await assert.rejects(server.connect(id));
  await assert.rejects(moveAway(id), ARCHIVED);
  // Its tags are its own still.
  await server.ec2.send(new CreateTagsCommand({ Resources: [id], Tags: [{ Key: 'k', Value: 'v' }] }));
  // A day later the object store has nothing of it.
  assert.ok(packsIn(objects).length > 0);
  const yesterday = new Date(Date.now() - 2 * DAY).toISOString();
  await withStoppedServer((catalog) => catalog.prepare('update retired_roots set retired_at = ?').run(yesterday));
  assert.ok((await server.admin.ask<{ objects: number }>('collect', { remove: true })).objects > 0);
  assert.deepEqual(packsIn(objects), []);

  const back = await bringBack(id, { PermanentRestore: true });
  assert.deepEqual([back.IsPermanentRestore, back.RestoreDuration], [true, undefined]);
  const after = await settled(id);
  assert.deepEqual(
    [after.LastTieringOperationStatus, after.StorageTier, after.RestoreExpiryTime],
    ['permanent-restore-completed', 'standard', undefined],
  );
  assert.deepEqual(after.Tags, [{ Key: 'k', Value: 'v' }]);
  await assertHolds(id, bytes);
  assert.equal((await server.admin.ask<{ objects: number }>('collect', { remove: false })).objects, 0);
  await assert.rejects(bringBack(id, { PermanentRestore: true }), { name: 'IncorrectState', message: /not in/ });
  await server.ec2.send(new DeleteSnapshotCommand({ SnapshotId: id }));
});

test('restored for some days, it is ready for use, then archived again; more days, fewer, for good, or none can be asked for', async () => {
  const { id, bytes } = await oneSnapshot();
  await moveAway(id);
  await settled(id);
  const asked = await bringBack(id, { TemporaryRestoreDays: 3 });
  assert.deepEqual([asked.IsPermanentRestore, asked.RestoreDuration], [false, 3]);
  const daysLeft = async (): Promise<number> => {
    const { LastTieringOperationStatus, StorageTier, RestoreExpiryTime } = await settled(id);
    assert.deepEqual([LastTieringOperationStatus, StorageTier], ['temporary-restore-completed', 'standard']);
    assert.deepEqual((await described(id)).RestoreExpiryTime, RestoreExpiryTime);
    return Math.round((Number(RestoreExpiryTime) - Date.now()) / DAY);
  };
  assert.equal(await daysLeft(), 3);
  await assertHolds(id, bytes);
  await bringBack(id, { TemporaryRestoreDays: 180 });
  assert.equal(await daysLeft(), 180);
  await bringBack(id, { TemporaryRestoreDays: 1 });
  assert.equal(await daysLeft(), 1);
  // At once, without its bytes going anywhere.
  await moveAway(id);
  const again = await settled(id);
  assert.deepEqual([again.StorageTier, again.LastTieringOperationStatus], ['archive', 'archival-completed']);
  await bringBack(id, { TemporaryRestoreDays: 2 });
  await settled(id);
  await bringBack(id, { PermanentRestore: true });
  const { StorageTier, RestoreExpiryTime } = await statusOf(id);
  assert.deepEqual([StorageTier, RestoreExpiryTime], ['standard', undefined]);
  await assertHolds(id, bytes);
  await server.ec2.send(new DeleteSnapshotCommand({ SnapshotId: id }));
});

test('the folder of an archived snapshot is a store that can be verified and exported from by itself', async (t) => {
  const { id, bytes } = await oneSnapshot();
  await moveAway(id);
  await settled(id);
  const store = ['--object-store', `file://${archive}/${id}`];
  const verified = JSON.parse(await tool(process.execPath, [CLEANCUT, 'verify', ...store, '--json']));
  assert.deepEqual([verified.snapshots, verified.blocks, verified.damage], [1, BLOCKS, []]);
  const image = `${temporaryDirectory(t)}/image`;
  await tool(process.execPath, [CLEANCUT, 'export', id, image, ...store]);
  const found = Buffer.alloc(bytes.length);
  const opened = openSync(image, 'r');
  readSync(opened, found, 0, bytes.length, 0);
  closeSync(opened);
  assert.ok(found.equals(bytes));
  // And so is the archive, as far as looking goes.
  const all = ['--object-store', `file://${archive}`];
  const together = JSON.parse(await tool(process.execPath, [CLEANCUT, 'verify', ...all, '--json']));
  assert.deepEqual([together.snapshots, together.blocks, together.damage], [1, BLOCKS, []]);
  await tool(process.execPath, [CLEANCUT, 'export', id, `${image}-2`, ...all]);
  assert.ok(readFileSync(`${image}-2`).subarray(0, bytes.length).equals(bytes));
  const other = ['--data-dir', temporaryDirectory(t)];
  await assert.rejects(tool(process.execPath, [CLEANCUT, 'rebuild', ...all, ...other]), /give it with --archive-store/);
  const [pack] = packsIn(`${archive}/${id}`);
  const path = `${archive}/${id}/packs/${pack.slice(0, 2)}/${pack}`;
  writeFileSync(path, randomBytes(readFileSync(path).length));
  const damaged = await tool(process.execPath, [CLEANCUT, 'verify', ...all, '--json']).catch(
    (error: { stdout: string }) => error.stdout,
  );
  const { damage } = JSON.parse(damaged) as typeof together;
  assert.ok(damage.length > 0 && damage.every((each: { object: string }) => each.object.startsWith(`${id}/packs/`)));
  await server.ec2.send(new DeleteSnapshotCommand({ SnapshotId: id }));
});

test('an encrypted snapshot is encrypted in the archive, and comes back under its key', async () => {
  const { id, bytes } = await oneSnapshot({ Encrypted: true });
  const { DataEncryptionKeyId } = await described(id);
  await moveAway(id);
  await settled(id);
  for (const name of readdirSync(`${archive}/${id}`, { recursive: true, withFileTypes: true })) {
    if (!name.isFile()) continue;
    const stored = readFileSync(`${name.parentPath}/${name.name}`);
    assert.ok(!stored.includes(bytes.subarray(1000, 1032)), `${name.name} holds what was written`);
  }
  await bringBack(id, { PermanentRestore: true });
  await settled(id);
  await assertHolds(id, bytes);
  assert.equal((await described(id)).DataEncryptionKeyId, DataEncryptionKeyId);
});

test('the disk is gone: a rebuild from both stores has archived snapshots where they were', async () => {
  const [away, back] = [await oneSnapshot(), await oneSnapshot()];
  for (const { id } of [away, back]) {
    await moveAway(id);
    await settled(id);
  }
  await bringBack(back.id, { TemporaryRestoreDays: 5 });
  await settled(back.id);
  const before = [await described(away.id), await described(back.id)];
  await server.stop();
  const dataDir = temporaryDirectory(file);
  const rebuild = async (...more: string[]): Promise<Rebuilt> =>
    JSON.parse(await tool(process.execPath, [CLEANCUT, 'rebuild', ...flags, '--data-dir', dataDir, '--json', ...more]));
  const rebuilt = await rebuild('--snapshots-only');
  assert.deepEqual([rebuilt.unreadable, rebuilt.partialSets], [[], []]);
  assert.equal((await rebuild('--snapshots-only')).snapshots, 0);
  // The key of what is encrypted is the other directory's.
  cpSync(`${server.dataDir}/keyring.key`, `${dataDir}/keyring.key`);
  server = await startTestServer(file, { dataDir, flags });
  assert.deepEqual([await described(away.id), await described(back.id)], before);
  await assertHolds(back.id, back.bytes);
  await bringBack(away.id, { PermanentRestore: true });
  assert.equal((await settled(away.id)).LastTieringOperationStatus, 'permanent-restore-completed');
  await assertHolds(away.id, away.bytes);
  ebs.destroy();
  ebs = newEbs();
});

test('with the copy of the catalog, too; and without the archive, what is there is not forgotten', async () => {
  const { id, bytes } = await oneSnapshot();
  await moveAway(id);
  await settled(id);
  // A clean stop saves the catalog.
  await server.stop();
  const dataDir = temporaryDirectory(file);
  cpSync(`${server.dataDir}/keyring.key`, `${dataDir}/keyring.key`);
  await tool(process.execPath, [CLEANCUT, 'rebuild', '--object-store', `file://${objects}`, '--data-dir', dataDir]);
  server = await startTestServer(file, { dataDir, flags });
  ebs.destroy();
  ebs = newEbs();
  assert.equal((await described(id)).StorageTier, 'archive');
  await bringBack(id, { PermanentRestore: true });
  await settled(id);
  await assertHolds(id, bytes);
});

test('what cannot be archived, or restored', async () => {
  const none = newId('snap');
  await assert.rejects(moveAway(none), { name: 'InvalidSnapshot.NotFound' });
  await assert.rejects(
    server.ec2.send(new ModifySnapshotTierCommand({ SnapshotId: none, StorageTier: 'standard' as 'archive' })),
    { name: 'InvalidParameterValue' },
  );
  await assert.rejects(server.ec2.send(new ModifySnapshotTierCommand({ SnapshotId: none })), {
    name: 'MissingParameter',
  });
  for (const [name, how] of [
    ['MissingParameter', {}],
    ['InvalidParameterValue', { TemporaryRestoreDays: 0 }],
    ['InvalidParameterValue', { TemporaryRestoreDays: 181 }],
    ['InvalidParameterCombination', { TemporaryRestoreDays: 1, PermanentRestore: true }],
    ['InvalidSnapshot.NotFound', { PermanentRestore: true }],
  ] as const) {
    await assert.rejects(bringBack(none, how), { name }, JSON.stringify(how));
  }
  const { SnapshotId: pending = '' } = await ebs.send(new StartSnapshotCommand({ VolumeSize: 1 }));
  await assert.rejects(moveAway(pending), { name: 'IncorrectState', message: /pending/ });
  const { id } = await oneSnapshot();
  await assert.rejects(bringBack(id, { TemporaryRestoreDays: 1 }), { name: 'IncorrectState', message: /not in/ });
  const { ImageId } = await server.ec2.send(new RegisterImageCommand(imageOf(id)));
  await assert.rejects(moveAway(id), { name: 'InvalidSnapshot.InUse', message: new RegExp(ImageId ?? '') });
  await server.ec2.send(new DeregisterImageCommand({ ImageId }));
  await moveAway(id);
  await settled(id);
});

test('without --archive-store there is no archive tier, and the server says how to have one', async (t) => {
  const plain = await startTestServer(t);
  const move = new ModifySnapshotTierCommand({ SnapshotId: newId('snap'), StorageTier: 'archive' });
  await assert.rejects(plain.ec2.send(move), { name: 'UnsupportedOperation', message: /--archive-store/ });
  await plain.stop();
  for (const [one, other] of [
    [`file://${objects}`, `file://${objects}/x/../`],
    ['s3://bucket/a?region=eu-west-1', 's3://bucket/a/?path-style=true'],
  ]) {
    const same = ['--object-store', one, '--archive-store', other];
    await assert.rejects(startTestServer(t, { flags: same }), /archiveStore: .* a place of its own/);
  }
});

function imageOf(SnapshotId: string): RegisterImageCommandInput {
  const BlockDeviceMappings = [{ DeviceName: '/dev/xvda', Ebs: { SnapshotId } }];
  return { Name: `of ${SnapshotId}`, RootDeviceName: '/dev/xvda', BlockDeviceMappings };
}
