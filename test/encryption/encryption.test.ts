import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import {
  closeSync,
  copyFileSync,
  existsSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { test } from 'node:test';
import {
  CompleteSnapshotCommand,
  EBSClient,
  GetSnapshotBlockCommand,
  ListSnapshotBlocksCommand,
  PutSnapshotBlockCommand,
  StartSnapshotCommand,
} from '@aws-sdk/client-ebs';
import {
  AttachVolumeCommand,
  CopySnapshotCommand,
  CreateSnapshotCommand,
  CreateVolumeCommand,
  DeleteSnapshotCommand,
  DescribeSnapshotsCommand,
  DescribeVolumesCommand,
  DisableEbsEncryptionByDefaultCommand,
  EnableEbsEncryptionByDefaultCommand,
  GetEbsDefaultKmsKeyIdCommand,
  GetEbsEncryptionByDefaultCommand,
  ModifyEbsDefaultKmsKeyIdCommand,
  ModifySnapshotAttributeCommand,
  ResetEbsDefaultKmsKeyIdCommand,
  RunInstancesCommand,
  StartInstancesCommand,
  StopInstancesCommand,
} from '@aws-sdk/client-ec2';
import type { KeyReport } from '../../src/keys/key-service.ts';
import { BLOCK_BYTES } from '../../src/types/units.ts';
import { createSnapshots, EMPTY_IMAGE, ended, launchInstance } from '../support/instances.ts';
import { startKmsServer } from '../support/kms-server.ts';
import { startS3Server } from '../support/s3-server.ts';
import { readCredentials, startTestServer, type TestServer } from '../support/server.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';
import { tool } from '../support/tools.ts';

const CLEANCUT = new URL('../../bin/cleancut.js', import.meta.url).pathname;
const ZONE = 'us-east-1a';
/** What is looked for in every file: plain, and in the forms in which it could be hidden. */
const SECRET = Buffer.from('the planted secret 8d1f2c, which must not be found');

/** A device's worth of text with secrets in it, some of it compressible, some not. */
function bytesWithSecrets(length: number): Buffer {
  const bytes = Buffer.alloc(length, 'text that compresses well; ');
  for (let at = 0; at < length; at += 100_000) {
    SECRET.copy(bytes, at);
    randomBytes(40_000).copy(bytes, at + SECRET.length);
  }
  return bytes;
}

async function cleancut(args: string[], environment: NodeJS.ProcessEnv = {}): Promise<string> {
  return tool(process.execPath, [CLEANCUT, ...args], environment);
}

async function key(server: TestServer, ...args: string[]): Promise<KeyReport> {
  const printed = await cleancut(['key', ...args, '--data-dir', server.dataDir, '--json']);
  return (JSON.parse(printed) as KeyReport[])[0];
}

async function encryptedInstance(server: TestServer, kms?: string): Promise<{ instanceId: string; volume: string }> {
  const instance = await launchInstance(server.ec2, []);
  const volume = await server.ec2.send(
    new CreateVolumeCommand({
      AvailabilityZone: ZONE,
      Size: 1,
      Encrypted: true,
      ...(kms === undefined ? {} : { KmsKeyId: kms }),
    }),
  );
  const VolumeId = volume.VolumeId ?? '';
  assert.equal(volume.Encrypted, true);
  await server.ec2.send(new AttachVolumeCommand({ VolumeId, InstanceId: instance.instanceId, Device: '/dev/sdf' }));
  return { instanceId: instance.instanceId, volume: VolumeId };
}

async function write(server: TestServer, name: string, offset: number, bytes: Buffer): Promise<void> {
  const client = await server.connect(name);
  await client.write(offset, bytes);
  await client.flush();
  await client.close();
}

async function read(server: TestServer, name: string, offset: number, length: number): Promise<Buffer> {
  const client = await server.connect(name);
  const bytes = await client.read(offset, length);
  await client.close();
  return bytes;
}

/** A volume of a snapshot, attached to a new instance. */
async function restored(server: TestServer, SnapshotId: string, KmsKeyId?: string): Promise<string> {
  const wish = KmsKeyId === undefined ? {} : { Encrypted: true, KmsKeyId };
  const { VolumeId = '' } = await server.ec2.send(
    new CreateVolumeCommand({ AvailabilityZone: ZONE, SnapshotId, ...wish }),
  );
  const { instanceId } = await launchInstance(server.ec2, []);
  await server.ec2.send(new AttachVolumeCommand({ VolumeId, InstanceId: instanceId, Device: '/dev/sdf' }));
  return VolumeId;
}

function filesBelow(directory: string): string[] {
  return readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => `${entry.parentPath}/${entry.name}`);
}

/** Sparse files are looked through where they hold data: 64 MiB from the start is where these tests write. */
function holdsSecret(file: string): boolean {
  const bytes = Buffer.alloc(Math.min(statSync(file).size, 64 * 1024 * 1024));
  const descriptor = openSync(file, 'r');
  readSync(descriptor, bytes, 0, bytes.length, 0);
  closeSync(descriptor);
  return bytes.includes(SECRET);
}

test('plain text never touches the disk or the bucket: volume, old pages, snapshots, and it all reads back', async (t) => {
  const server = await startTestServer(t);
  const { instanceId, volume } = await encryptedInstance(server);
  const first = bytesWithSecrets(6_000_000);
  // Off the page's boundary, so that pages are read, changed and encrypted again.
  await write(server, volume, 12_345, first);
  const snapshots = await createSnapshots(server.ec2, instanceId);
  const own = snapshots.find((snapshot) => snapshot.VolumeId === volume);
  assert.equal(own?.Encrypted, true);
  // The old pages go to the staging file while the upload runs.
  const second = bytesWithSecrets(3_000_000);
  await write(server, volume, 100_001, second);
  const [done] = await ended(server.ec2, [own ?? {}]);
  assert.equal(done.State, 'completed', done.StateMessage ?? '');
  assert.deepEqual(
    [done.Encrypted, done.KmsKeyId?.startsWith('arn:aws:kms:us-east-1:000000000001:key/')],
    [true, true],
  );
  const third = await ended(server.ec2, await createSnapshots(server.ec2, instanceId));
  assert.ok((await read(server, done.SnapshotId ?? '', 12_345, first.length)).equals(first));
  const now = Buffer.from(first);
  second.copy(now, 100_001 - 12_345);
  assert.ok((await read(server, volume, 12_345, first.length)).equals(now));
  const [later] = third.filter((snapshot) => snapshot.VolumeId === volume);
  assert.ok((await read(server, later.SnapshotId ?? '', 12_345, now.length)).equals(now));
  const copy = await restored(server, done.SnapshotId ?? '');
  assert.ok((await read(server, copy, 12_345, first.length)).equals(first));
  await server.stop();
  const files = filesBelow(server.dataDir);
  assert.ok(files.some((file) => file.includes('/packs/')) && files.some((file) => file.endsWith('data.00')));
  for (const file of files) assert.ok(!holdsSecret(file), `${file} holds the secret`);
});

test('the search for secrets finds them where nothing is encrypted', async (t) => {
  const server = await startTestServer(t);
  const instance = await launchInstance(server.ec2, [1]);
  await write(server, instance.volumes[0], 0, bytesWithSecrets(200_000));
  await ended(server.ec2, await createSnapshots(server.ec2, instance.instanceId));
  await server.stop();
  assert.ok(filesBelow(server.dataDir).some(holdsSecret));
});

test('keys by id, ARN and alias; another key encrypts anew, and the snapshots after that are incremental again', async (t) => {
  const server = await startTestServer(t);
  const one = await key(server, 'create', '--alias', 'alias/one', '--description', 'the first');
  const two = await key(server, 'create', '--alias', 'alias/two');
  const { instanceId, volume } = await encryptedInstance(server, 'alias/one');
  const bytes = bytesWithSecrets(5_000_000);
  await write(server, volume, 0, bytes);
  const described = (await server.ec2.send(new DescribeVolumesCommand({ VolumeIds: [volume] }))).Volumes?.[0];
  assert.deepEqual([described?.Encrypted, described?.KmsKeyId], [true, one.arn]);
  const [snapshot] = (await ended(server.ec2, await createSnapshots(server.ec2, instanceId))).filter(
    (each) => each.VolumeId === volume,
  );
  for (const name of [two.keyId, two.arn, 'alias/two', two.arn.replace(/key\/.*/, 'alias/two')]) {
    const other = await restored(server, snapshot.SnapshotId ?? '', name);
    // Before all of it was fetched: what is absent comes from the old snapshot, under the old key.
    await write(server, other, 1_000_000, Buffer.alloc(1000, 'new'));
    const own = await server.ec2.send(new CreateSnapshotCommand({ VolumeId: other }));
    const [stored] = await ended(server.ec2, [own]);
    assert.equal(stored.KmsKeyId, two.arn);
    assert.notEqual(stored.DataEncryptionKeyId, snapshot.DataEncryptionKeyId);
    const expected = Buffer.from(bytes);
    expected.fill('new', 1_000_000, 1_001_000);
    assert.ok((await read(server, stored.SnapshotId ?? '', 0, bytes.length)).equals(expected), name);
  }
  const same = await restored(server, snapshot.SnapshotId ?? '');
  const again = await ended(server.ec2, [await server.ec2.send(new CreateSnapshotCommand({ VolumeId: same }))]);
  assert.equal(again[0].DataEncryptionKeyId, snapshot.DataEncryptionKeyId);
  const filtered = await server.ec2.send(
    new DescribeSnapshotsCommand({ OwnerIds: ['self'], Filters: [{ Name: 'encrypted', Values: ['false'] }] }),
  );
  assert.ok(filtered.Snapshots?.every((each) => each.Encrypted === false));
  for (const name of ['alias/none', 'arn:aws:kms:us-east-1:000000000002:key/1', 'alias/aws/s3']) {
    await assert.rejects(
      server.ec2.send(new CreateVolumeCommand({ AvailabilityZone: ZONE, Size: 1, Encrypted: true, KmsKeyId: name })),
      { name: 'InvalidKMSKey.NotFound' },
    );
  }
  await assert.rejects(
    server.ec2.send(new CreateVolumeCommand({ AvailabilityZone: ZONE, Size: 1, KmsKeyId: 'alias/one' })),
    { name: 'InvalidParameterDependency' },
  );
  await assert.rejects(
    server.ec2.send(
      new CreateVolumeCommand({ AvailabilityZone: ZONE, SnapshotId: snapshot.SnapshotId, Encrypted: false }),
    ),
    { name: 'InvalidParameterCombination' },
  );
});

test('copies: a plain snapshot becomes an encrypted one, an encrypted one changes its key, none becomes plain', async (t) => {
  const server = await startTestServer(t, { flags: ['--more-regions', 'eu-west-1'] });
  const other = await key(server, 'create', '--alias', 'alias/other');
  const instance = await launchInstance(server.ec2, [1]);
  const bytes = bytesWithSecrets(3_000_000);
  await write(server, instance.volumes[0], 0, bytes);
  const snapshots = await ended(server.ec2, await createSnapshots(server.ec2, instance.instanceId));
  const plain = snapshots.find((each) => each.VolumeId === instance.volumes[0])?.SnapshotId ?? '';
  const copy = async (SourceSnapshotId: string, more: object = {}): Promise<string> => {
    const made = await server.ec2.send(
      new CopySnapshotCommand({ SourceRegion: 'us-east-1', SourceSnapshotId, ...more }),
    );
    const [done] = await ended(server.ec2, [made]);
    assert.equal(done.State, 'completed', done.StateMessage ?? '');
    assert.ok((await read(server, done.SnapshotId ?? '', 0, bytes.length)).equals(bytes));
    return done.SnapshotId ?? '';
  };
  const encrypted = await copy(plain, { Encrypted: true });
  const renewed = await copy(encrypted, { Encrypted: true, KmsKeyId: other.arn });
  const kept = await copy(renewed);
  const described = await server.ec2.send(
    new DescribeSnapshotsCommand({ SnapshotIds: [plain, encrypted, renewed, kept] }),
  );
  const of = (id: string) => described.Snapshots?.find((each) => each.SnapshotId === id);
  assert.equal(of(plain)?.Encrypted, false);
  assert.equal(of(encrypted)?.Encrypted, true);
  assert.deepEqual([of(renewed)?.KmsKeyId, of(kept)?.KmsKeyId], [other.arn, other.arn]);
  assert.equal(of(kept)?.DataEncryptionKeyId, of(renewed)?.DataEncryptionKeyId);
  await assert.rejects(copy(encrypted, { Encrypted: false }), { name: 'InvalidParameterCombination' });
  // Their sources gone and collected, copies are whole.
  for (const SnapshotId of [plain, encrypted, renewed])
    await server.ec2.send(new DeleteSnapshotCommand({ SnapshotId }));
  await cleancut(['gc', '--data-dir', server.dataDir]);
  assert.ok((await read(server, kept, 0, bytes.length)).equals(bytes));
  const verified = JSON.parse(await cleancut(['verify', '--data-dir', server.dataDir, '--json'])) as { damage: [] };
  assert.deepEqual(verified.damage, []);
});

test('a disabled key: nothing opens, and each says so; enabled again, all is as it was', async (t) => {
  const server = await startTestServer(t);
  const { arn } = await key(server, 'create', '--alias', 'alias/off');
  const { instanceId, volume } = await encryptedInstance(server, arn);
  await write(server, volume, 0, SECRET);
  const [snapshot] = (await ended(server.ec2, await createSnapshots(server.ec2, instanceId))).filter(
    (each) => each.VolumeId === volume,
  );
  assert.equal((await key(server, 'rotate', 'alias/off')).versions, 2);
  assert.equal((await key(server, 'disable', arn)).enabled, false);
  const state = { name: 'InvalidKMSKey.InvalidState' };
  await assert.rejects(createSnapshots(server.ec2, instanceId), state);
  await assert.rejects(restored(server, snapshot.SnapshotId ?? ''), state);
  await assert.rejects(server.connect(snapshot.SnapshotId ?? ''), /export/);
  await assert.rejects(
    server.ec2.send(new CreateVolumeCommand({ AvailabilityZone: ZONE, Size: 1, Encrypted: true, KmsKeyId: arn })),
    state,
  );
  // A volume that is in use goes on.
  assert.ok((await read(server, volume, 0, SECRET.length)).equals(SECRET));
  await server.ec2.send(new StopInstancesCommand({ InstanceIds: [instanceId] }));
  await assert.rejects(server.ec2.send(new StartInstancesCommand({ InstanceIds: [instanceId] })), state);
  assert.equal((await key(server, 'enable', arn)).enabled, true);
  await server.ec2.send(new StartInstancesCommand({ InstanceIds: [instanceId] }));
  assert.ok((await read(server, volume, 0, SECRET.length)).equals(SECRET));
  assert.ok((await read(server, snapshot.SnapshotId ?? '', 0, SECRET.length)).equals(SECRET));
});

test('encryption by default, and the default key that an account chooses', async (t) => {
  const server = await startTestServer(t);
  const byDefault = async () =>
    (await server.ec2.send(new GetEbsEncryptionByDefaultCommand({}))).EbsEncryptionByDefault;
  assert.equal(await byDefault(), false);
  await server.ec2.send(new EnableEbsEncryptionByDefaultCommand({}));
  assert.equal(await byDefault(), true);
  const first = (await server.ec2.send(new GetEbsDefaultKmsKeyIdCommand({}))).KmsKeyId;
  const chosen = await key(server, 'create', '--alias', 'alias/chosen');
  await server.ec2.send(new ModifyEbsDefaultKmsKeyIdCommand({ KmsKeyId: 'alias/chosen' }));
  const launched = await server.ec2.send(new RunInstancesCommand({ ImageId: EMPTY_IMAGE, MinCount: 1, MaxCount: 1 }));
  const root = launched.Instances?.[0].BlockDeviceMappings?.[0].Ebs?.VolumeId ?? '';
  const [volume] = (await server.ec2.send(new DescribeVolumesCommand({ VolumeIds: [root] }))).Volumes ?? [];
  assert.deepEqual([volume.Encrypted, volume.KmsKeyId], [true, chosen.arn]);
  const reset = await server.ec2.send(new ResetEbsDefaultKmsKeyIdCommand({}));
  assert.equal(reset.KmsKeyId, first);
  await server.ec2.send(new DisableEbsEncryptionByDefaultCommand({}));
  assert.equal(await byDefault(), false);
});

test('the EBS direct APIs write and read encrypted snapshots; a child is encrypted as its parent', async (t) => {
  const server = await startTestServer(t);
  const { arn } = await key(server, 'create');
  const ebs = new EBSClient({
    region: 'us-east-1',
    endpoint: server.apiUrl,
    credentials: readCredentials(server.dataDir),
  });
  t.after(() => ebs.destroy());
  const block = bytesWithSecrets(BLOCK_BYTES);
  const make = async (more: object): Promise<string> => {
    const { SnapshotId = '', SseType } = await ebs.send(new StartSnapshotCommand({ VolumeSize: 1, ...more }));
    assert.equal(SseType, 'sse-kms');
    const Checksum = createHash('sha256').update(block).digest('base64');
    await ebs.send(
      new PutSnapshotBlockCommand({
        SnapshotId,
        BlockIndex: 7,
        BlockData: block,
        DataLength: BLOCK_BYTES,
        Checksum,
        ChecksumAlgorithm: 'SHA256',
      }),
    );
    const aggregate = createHash('sha256').update(Buffer.from(Checksum, 'base64')).digest('base64');
    await ebs.send(
      new CompleteSnapshotCommand({
        SnapshotId,
        ChangedBlocksCount: 1,
        Checksum: aggregate,
        ChecksumAlgorithm: 'SHA256',
        ChecksumAggregationMethod: 'LINEAR',
      }),
    );
    await ended(server.ec2, [{ SnapshotId }]);
    return SnapshotId;
  };
  const parent = await make({ Encrypted: true, KmsKeyArn: arn });
  const child = await make({ ParentSnapshotId: parent });
  for (const SnapshotId of [parent, child]) {
    const { Blocks = [] } = await ebs.send(new ListSnapshotBlocksCommand({ SnapshotId }));
    const got = await ebs.send(
      new GetSnapshotBlockCommand({ SnapshotId, BlockIndex: 7, BlockToken: Blocks[0].BlockToken }),
    );
    assert.ok(Buffer.from((await got.BlockData?.transformToByteArray()) ?? []).equals(block));
    assert.equal(got.Checksum, createHash('sha256').update(block).digest('base64'));
    assert.ok((await read(server, SnapshotId, 7 * BLOCK_BYTES, BLOCK_BYTES)).equals(block));
  }
  await assert.rejects(
    ebs.send(new StartSnapshotCommand({ VolumeSize: 1, ParentSnapshotId: parent, Encrypted: true })),
    {
      name: 'ValidationException',
    },
  );
});

test('sharing: an encrypted snapshot never becomes public; one under a key of its own can be shared, and is encrypted anew', async (t) => {
  const server = await startTestServer(t);
  const { arn } = await key(server, 'create');
  const share = (SnapshotId: string | undefined, more: object) =>
    server.ec2.send(new ModifySnapshotAttributeCommand({ SnapshotId, OperationType: 'add', ...more }));
  for (const [kms, allowed] of [
    [arn, true],
    [undefined, false],
  ] as const) {
    const { instanceId, volume } = await encryptedInstance(server, kms);
    const [snapshot] = (await ended(server.ec2, await createSnapshots(server.ec2, instanceId))).filter(
      (each) => each.VolumeId === volume,
    );
    const refused = { name: 'OperationNotPermitted' };
    await assert.rejects(share(snapshot.SnapshotId, { GroupNames: ['all'] }), refused);
    const sharing = share(snapshot.SnapshotId, { UserIds: ['000000000002'] });
    if (allowed) await sharing;
    else await assert.rejects(sharing, refused);
  }
});

test('after a disaster: the bucket and the key file bring encrypted snapshots back; without the key file nothing does', async (t) => {
  const s3 = await startS3Server(t);
  const keyFile = `${temporaryDirectory(t)}/key`;
  writeFileSync(keyFile, randomBytes(48), { mode: 0o600 });
  const flags = ['--object-store', s3.url, '--key-file', keyFile];
  const server = await startTestServer(t, { flags, environment: s3.environment });
  const { instanceId, volume } = await encryptedInstance(server);
  const bytes = bytesWithSecrets(2_000_000);
  await write(server, volume, 0, bytes);
  const [snapshot] = (await ended(server.ec2, await createSnapshots(server.ec2, instanceId))).filter(
    (each) => each.VolumeId === volume,
  );
  const id = snapshot.SnapshotId ?? '';
  assert.ok(!existsSync(`${server.dataDir}/keyring.key`));
  await server.stop();
  rmSync(server.dataDir, { recursive: true });

  const exported = `${temporaryDirectory(t)}/image`;
  const from = ['--object-store', s3.url, '--data-dir', temporaryDirectory(t)];
  await cleancut(['export', id, exported, '--key-file', keyFile, ...from], s3.environment);
  assert.ok(readFileSync(exported).subarray(0, bytes.length).equals(bytes));
  await assert.rejects(cleancut(['export', id, `${exported}-2`, ...from], s3.environment), /name the key file/);
  assert.ok(!existsSync(`${exported}-2`));

  const dataDir = temporaryDirectory(t);
  await cleancut(['rebuild', '--object-store', s3.url, '--data-dir', dataDir], s3.environment);
  const otherFile = `${temporaryDirectory(t)}/other`;
  writeFileSync(otherFile, randomBytes(48), { mode: 0o600 });
  await assert.rejects(
    startTestServer(t, {
      dataDir,
      flags: ['--object-store', s3.url, '--key-file', otherFile],
      environment: s3.environment,
    }),
    /protected by another key file/,
  );
  copyFileSync(keyFile, otherFile);
  const again = await startTestServer(t, {
    dataDir,
    flags: ['--object-store', s3.url, '--key-file', otherFile],
    environment: s3.environment,
  });
  const copy = await restored(again, id);
  assert.ok((await read(again, copy, 0, bytes.length)).equals(bytes));
});

test('a keyring under a passphrase; the passphrase reaches no other process', async (t) => {
  const environment = { CLEANCUT_KEY_PASSPHRASE: 'correct horse battery staple' };
  const server = await startTestServer(t, { environment });
  const { volume } = await encryptedInstance(server);
  await write(server, volume, 0, SECRET);
  const children = readFileSync(`/proc/${server.process.pid}/task/${server.process.pid}/children`, 'utf8');
  assert.ok(children.trim().split(' ').length >= 2);
  for (const child of children.trim().split(' ')) {
    assert.ok(!readFileSync(`/proc/${child}/environ`, 'utf8').includes('battery staple'));
  }
  await server.stop();
  const { dataDir } = server;
  await assert.rejects(
    startTestServer(t, { dataDir, environment: { CLEANCUT_KEY_PASSPHRASE: 'another one' } }),
    /protected by another passphrase/,
  );
  const again = await startTestServer(t, { dataDir, environment });
  assert.ok((await read(again, volume, 0, SECRET.length)).equals(SECRET));
});

test('kill -9 of the server while an encrypted volume is written, cut and copied: nothing is lost', async (t) => {
  const dataDir = temporaryDirectory(t);
  let server = await startTestServer(t, { dataDir });
  const { instanceId, volume } = await encryptedInstance(server);
  const bytes = bytesWithSecrets(24_000_000);
  await write(server, volume, 777, bytes);
  const snapshots = await createSnapshots(server.ec2, instanceId);
  const own = snapshots.find((each) => each.VolumeId === volume)?.SnapshotId ?? '';
  await write(server, volume, 777, Buffer.alloc(bytes.length, 'overwritten '));
  await server.kill();
  server = await startTestServer(t, { dataDir });
  const [done] = await ended(server.ec2, [{ SnapshotId: own }]);
  assert.equal(done.State, 'completed', done.StateMessage ?? '');
  assert.ok((await read(server, own, 777, bytes.length)).equals(bytes));
  const copy = await server.ec2.send(
    new CopySnapshotCommand({
      SourceRegion: 'us-east-1',
      SourceSnapshotId: own,
      Encrypted: true,
      KmsKeyId: (await key(server, 'create')).arn,
    }),
  );
  await server.kill();
  server = await startTestServer(t, { dataDir });
  const [copied] = await ended(server.ec2, [copy]);
  assert.equal(copied.State, 'completed', copied.StateMessage ?? '');
  assert.ok((await read(server, copy.SnapshotId ?? '', 777, bytes.length)).equals(bytes));
});

test('keys in a KMS: data keys are wrapped and unwrapped there, and an outage of it ends nothing', async (t) => {
  const kms = await startKmsServer(t);
  const environment = { AWS_ACCESS_KEY_ID: 'of-the-kms', AWS_SECRET_ACCESS_KEY: 'secret' };
  const dataDir = temporaryDirectory(t);
  const flags = ['--kms', kms.url];
  let server = await startTestServer(t, { dataDir, flags, environment });
  const mine = await key(server, 'create', '--alias', 'alias/mine');
  const { instanceId, volume } = await encryptedInstance(server, 'alias/mine');
  const { volume: byDefault } = await encryptedInstance(server);
  await write(server, volume, 0, SECRET);
  const described = await server.ec2.send(new DescribeVolumesCommand({ VolumeIds: [volume, byDefault] }));
  const arns = described.Volumes?.map((each) => each.KmsKeyId);
  assert.ok(arns?.includes(mine.arn) && new Set(arns).size === 2);
  await ended(server.ec2, await createSnapshots(server.ec2, instanceId));
  await key(server, 'disable', mine.keyId);
  await assert.rejects(createSnapshots(server.ec2, instanceId), { name: 'InvalidKMSKey.InvalidState' });
  await key(server, 'enable', mine.keyId);
  await key(server, 'rotate', mine.keyId);
  assert.equal((await key(server, 'alias', mine.keyId, 'alias/more')).aliases.length, 2);
  const snapshots = await createSnapshots(server.ec2, instanceId);
  kms.reachable = false;
  await assert.rejects(createSnapshots(server.ec2, instanceId), { name: 'InternalError' });
  kms.reachable = true;
  for (const each of await ended(server.ec2, snapshots)) assert.equal(each.State, 'completed');
  await server.stop();
  server = await startTestServer(t, { dataDir, flags, environment });
  assert.ok((await read(server, volume, 0, SECRET.length)).equals(SECRET));
  assert.ok(kms.calls.includes('Decrypt') && kms.calls.includes('GenerateDataKey'));
  assert.ok(!existsSync(`${dataDir}/keyring.json`));
});

test('a keyring that is lost: the server starts, all else works, and what was encrypted says so; put back, it is there', async (t) => {
  const server = await startTestServer(t);
  const { instanceId, volume } = await encryptedInstance(server);
  await write(server, volume, 0, SECRET);
  await ended(server.ec2, await createSnapshots(server.ec2, instanceId));
  await server.stop();
  const { dataDir } = server;
  renameSync(`${dataDir}/keyring.json`, `${dataDir}/elsewhere`);
  const without = await startTestServer(t, { dataDir });
  await assert.rejects(without.connect(volume), /export/);
  await assert.rejects(createSnapshots(without.ec2, instanceId), { name: 'InvalidKMSKey.NotFound' });
  assert.match(without.log(), /the keyring has no key/);
  const { volumes } = await launchInstance(without.ec2, [1]);
  await write(without, volumes[0], 0, SECRET);
  await without.stop();
  renameSync(`${dataDir}/elsewhere`, `${dataDir}/keyring.json`);
  const again = await startTestServer(t, { dataDir });
  assert.ok((await read(again, volume, 0, SECRET.length)).equals(SECRET));
});
