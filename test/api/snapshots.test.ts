import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, test } from 'node:test';
import {
  CopySnapshotCommand,
  CreateSnapshotCommand,
  CreateTagsCommand,
  CreateVolumeCommand,
  DeleteSnapshotCommand,
  DescribeSnapshotAttributeCommand,
  DescribeSnapshotsCommand,
  type DescribeSnapshotsCommandInput,
  EC2Client,
  ModifySnapshotAttributeCommand,
  ResetSnapshotAttributeCommand,
} from '@aws-sdk/client-ec2';
import { AdminClient } from '../../src/admin/admin-client.ts';
import type { NewUser } from '../../src/admin/users.ts';
import { FileCleanup } from '../support/cleanup.ts';
import { createSnapshots, ended, launchInstance, type TestInstance } from '../support/instances.ts';
import { readCredentials, startTestServer, type TestServer } from '../support/server.ts';

let server: TestServer;
let elsewhere: EC2Client;
let stranger: EC2Client;
let strangersAdmin: AdminClient;
let instance: TestInstance;
let bytes: Buffer;
const file = new FileCleanup();
before(async () => {
  server = await startTestServer(file, {
    flags: ['--more-regions', 'eu-west-1,ap-south-1'],
  });
  const settings = { endpoint: server.apiUrl, maxAttempts: 1 };
  elsewhere = new EC2Client({ ...settings, region: 'eu-west-1', credentials: readCredentials(server.dataDir) });
  const user = await server.admin.ask<NewUser>('create-user', { accountId: '000000000002', userName: 'bob' });
  stranger = new EC2Client({ ...settings, region: 'us-east-1', credentials: user });
  strangersAdmin = new AdminClient({ apiUrl: server.apiUrl, region: 'us-east-1', credentials: user });
  instance = await launchInstance(server.ec2, [1]);
  bytes = randomBytes(2_000_000);
  const client = await server.connect(instance.volumes[0]);
  await client.write(3_000_000, bytes);
  await client.close();
});
after(async () => {
  elsewhere.destroy();
  stranger.destroy();
  await server.stop();
  file.run();
});

async function oneSnapshot(): Promise<string> {
  const made = await server.ec2.send(
    new CreateSnapshotCommand({ VolumeId: instance.volumes[0], Description: 'alone' }),
  );
  await ended(server.ec2, [made]);
  return made.SnapshotId ?? '';
}

test('CreateSnapshot of one volume, attached or not', async () => {
  const made = await server.ec2.send(
    new CreateSnapshotCommand({
      VolumeId: instance.volumes[0],
      Description: 'alone',
      TagSpecifications: [{ ResourceType: 'snapshot', Tags: [{ Key: 'k', Value: 'v' }] }],
    }),
  );
  assert.equal(made.State, 'pending');
  assert.equal(made.VolumeId, instance.volumes[0]);
  assert.deepEqual(made.Tags, [{ Key: 'k', Value: 'v' }]);
  const [done] = await ended(server.ec2, [made]);
  assert.equal(done.State, 'completed');
  assert.equal(done.FullSnapshotSizeInBytes, 5 * 524_288);
  assert.ok(done.CompletionTime !== undefined);
  const detached = await server.ec2.send(
    new CreateVolumeCommand({ AvailabilityZone: 'us-east-1a', SnapshotId: done.SnapshotId }),
  );
  const [second] = await ended(server.ec2, [
    await server.ec2.send(new CreateSnapshotCommand({ VolumeId: detached.VolumeId })),
  ]);
  const reader = await server.connect(second.SnapshotId ?? '');
  assert.ok((await reader.read(3_000_000, bytes.length)).equals(bytes));
  await reader.close();
  await assert.rejects(server.ec2.send(new CreateSnapshotCommand({ VolumeId: 'vol-0123456789abcdef0' })), {
    name: 'InvalidVolume.NotFound',
  });
});

test('CopySnapshot within a region and to another: a snapshot of its own, with the same bytes', async () => {
  const SourceSnapshotId = await oneSnapshot();
  const near = await server.ec2.send(new CopySnapshotCommand({ SourceRegion: 'us-east-1', SourceSnapshotId }));
  const [copy] = await ended(server.ec2, [near]);
  assert.equal(copy.State, 'completed');
  assert.equal(copy.Description, `[Copied ${SourceSnapshotId} from us-east-1]`);
  const far = await elsewhere.send(
    new CopySnapshotCommand({
      SourceRegion: 'us-east-1',
      SourceSnapshotId,
      Description: 'far away',
      TagSpecifications: [{ ResourceType: 'snapshot', Tags: [{ Key: 'k', Value: 'v' }] }],
    }),
  );
  const [there] = await ended(elsewhere, [far]);
  assert.deepEqual([there.State, there.Description, there.VolumeSize], ['completed', 'far away', 1]);
  await server.ec2.send(new DeleteSnapshotCommand({ SnapshotId: SourceSnapshotId }));
  for (const id of [near.SnapshotId, far.SnapshotId]) {
    const reader = await server.connect(id ?? '');
    assert.ok((await reader.read(3_000_000, bytes.length)).equals(bytes));
    await reader.close();
  }
  // Each region sees its own.
  await assert.rejects(server.ec2.send(new DescribeSnapshotsCommand({ SnapshotIds: [far.SnapshotId ?? ''] })), {
    name: 'InvalidSnapshot.NotFound',
  });
  await assert.rejects(
    server.ec2.send(new CopySnapshotCommand({ SourceRegion: 'mars-1', SourceSnapshotId: near.SnapshotId })),
    { name: 'InvalidParameterValue', message: /mars-1.*us-east-1, eu-west-1, ap-south-1/ },
  );
  await assert.rejects(
    server.ec2.send(new CopySnapshotCommand({ SourceRegion: 'eu-west-1', SourceSnapshotId: near.SnapshotId })),
    { name: 'InvalidSnapshot.NotFound' },
  );
});

test('a snapshot is its owner’s alone until it is shared, and again afterwards', async () => {
  const SnapshotId = await oneSnapshot();
  await server.ec2.send(new CreateTagsCommand({ Resources: [SnapshotId], Tags: [{ Key: 'secret', Value: 'x' }] }));
  const sees = async (input = {}): Promise<boolean> => {
    const { Snapshots = [] } = await stranger.send(new DescribeSnapshotsCommand(input));
    return Snapshots.some((snapshot) => snapshot.SnapshotId === SnapshotId);
  };
  const restore = () => stranger.send(new CreateVolumeCommand({ AvailabilityZone: 'us-east-1a', SnapshotId }));
  assert.equal(await sees(), false);
  await assert.rejects(restore(), { name: 'InvalidSnapshot.NotFound' });
  const share = (OperationType: 'add' | 'remove') =>
    server.ec2.send(
      new ModifySnapshotAttributeCommand({
        SnapshotId,
        Attribute: 'createVolumePermission',
        OperationType,
        UserIds: ['000000000002'],
      }),
    );
  await share('add');
  const attribute = await server.ec2.send(
    new DescribeSnapshotAttributeCommand({ SnapshotId, Attribute: 'createVolumePermission' }),
  );
  assert.deepEqual(attribute.CreateVolumePermissions, [{ UserId: '000000000002' }]);
  assert.equal(await sees(), true);
  assert.equal(await sees({ RestorableByUserIds: ['self'] }), true);
  assert.equal(await sees({ OwnerIds: ['self'] }), false);
  assert.equal(await sees({ OwnerIds: ['000000000001'] }), true);
  const [shown] = (await stranger.send(new DescribeSnapshotsCommand({ SnapshotIds: [SnapshotId] }))).Snapshots ?? [];
  assert.equal(shown.Tags, undefined, 'tags are the owner’s');
  assert.equal((await restore()).SnapshotId, SnapshotId);
  const copy = await stranger.send(
    new CopySnapshotCommand({ SourceRegion: 'us-east-1', SourceSnapshotId: SnapshotId }),
  );
  assert.equal((await ended(stranger, [copy]))[0].OwnerId, '000000000002');
  // Seeing is not owning.
  for (const command of [
    new DeleteSnapshotCommand({ SnapshotId }),
    new DescribeSnapshotAttributeCommand({ SnapshotId, Attribute: 'createVolumePermission' }),
    new ResetSnapshotAttributeCommand({ SnapshotId, Attribute: 'createVolumePermission' }),
    new CreateTagsCommand({ Resources: [SnapshotId], Tags: [{ Key: 'mine', Value: '' }] }),
  ]) {
    await assert.rejects(stranger.send(command as DeleteSnapshotCommand), { name: 'InvalidSnapshot.NotFound' });
  }
  await share('remove');
  assert.equal(await sees(), false);
  await server.ec2.send(
    new ModifySnapshotAttributeCommand({ SnapshotId, CreateVolumePermission: { Add: [{ Group: 'all' }] } }),
  );
  assert.equal(await sees({ RestorableByUserIds: ['all'] }), true);
  await server.ec2.send(new ResetSnapshotAttributeCommand({ SnapshotId, Attribute: 'createVolumePermission' }));
  assert.equal(await sees(), false);
  await assert.rejects(
    strangersAdmin.ask('create-user', { accountId: '000000000001', userName: 'mallory' }),
    /UnauthorizedOperation/,
  );
});

test('bad attributes are refused by name', async () => {
  const SnapshotId = await oneSnapshot();
  const modify = (more: object) => server.ec2.send(new ModifySnapshotAttributeCommand({ SnapshotId, ...more }));
  await assert.rejects(modify({}), { name: 'MissingParameter' });
  await assert.rejects(modify({ UserIds: ['000000000002'] }), { name: 'MissingParameter', message: /OperationType/ });
  await assert.rejects(modify({ UserIds: ['bob'], OperationType: 'add' }), {
    name: 'InvalidParameterValue',
    message: /bob/,
  });
  await assert.rejects(modify({ GroupNames: ['friends'], OperationType: 'add' }), {
    name: 'InvalidParameterValue',
    message: /friends/,
  });
  await assert.rejects(
    server.ec2.send(new DescribeSnapshotAttributeCommand({ SnapshotId, Attribute: 'colour' as never })),
    { name: 'InvalidParameterValue', message: /colour/ },
  );
});

test('limits: snapshots in progress, time between them, and their number', async (t) => {
  const limited = await startTestServer(t, {
    flags: [
      '--pending-snapshots-per-volume',
      '2',
      '--snapshots-per-account',
      '7',
      '--object-store',
      's3://none?endpoint=http://127.0.0.1:1',
    ],
    environment: { AWS_ACCESS_KEY_ID: 'x', AWS_SECRET_ACCESS_KEY: 'y' },
  });
  const { instanceId } = await launchInstance(limited.ec2, [1]);
  await createSnapshots(limited.ec2, instanceId);
  await createSnapshots(limited.ec2, instanceId);
  await assert.rejects(createSnapshots(limited.ec2, instanceId), { name: 'ConcurrentSnapshotLimitExceeded' });
  const other = await launchInstance(limited.ec2, [1]);
  await createSnapshots(limited.ec2, other.instanceId);
  await assert.rejects(createSnapshots(limited.ec2, other.instanceId), { name: 'SnapshotLimitExceeded' });
  const slow = await startTestServer(t, { flags: ['--snapshot-gap-seconds', '15'] });
  const third = await launchInstance(slow.ec2, [1]);
  await createSnapshots(slow.ec2, third.instanceId);
  await assert.rejects(createSnapshots(slow.ec2, third.instanceId), { name: 'SnapshotCreationPerVolumeRateExceeded' });
});

test('pages go through one’s own and what others share in the order of their ids, each once', async (t) => {
  const own = await startTestServer(t);
  const settings = { endpoint: own.apiUrl, maxAttempts: 1, region: 'us-east-1' };
  const user = await own.admin.ask<NewUser>('create-user', { accountId: '000000000002', userName: 'bob' });
  const bob = new EC2Client({ ...settings, credentials: user });
  const takeSome = async (ec2: EC2Client): Promise<{ ids: string[]; volumes: string[] }> => {
    const { instanceId } = await launchInstance(ec2, [1, 1]);
    const made = [...(await createSnapshots(ec2, instanceId)), ...(await createSnapshots(ec2, instanceId))];
    await ended(ec2, made);
    const volumes = made.slice(0, 3).map(({ VolumeId = '' }) => VolumeId);
    return { ids: made.map(({ SnapshotId = '' }) => SnapshotId), volumes };
  };
  const mine = await takeSome(own.ec2);
  const bobs = await takeSome(bob);
  const shared = [bobs.ids[0], bobs.ids[3], bobs.ids[4]];
  for (const [index, SnapshotId] of shared.entries()) {
    const to = index === 0 ? { Group: 'all' as const } : { UserId: '000000000001' };
    await bob.send(new ModifySnapshotAttributeCommand({ SnapshotId, CreateVolumePermission: { Add: [to] } }));
  }
  const paged = async (input: DescribeSnapshotsCommandInput): Promise<string[]> => {
    const found: string[] = [];
    let NextToken: string | undefined;
    do {
      const page = await own.ec2.send(new DescribeSnapshotsCommand({ ...input, MaxResults: 2, NextToken }));
      found.push(...(page.Snapshots ?? []).map(({ SnapshotId = '' }) => SnapshotId));
      NextToken = page.NextToken;
    } while (NextToken !== undefined);
    return found;
  };
  assert.deepEqual(await paged({}), [...mine.ids, ...shared].sort());
  assert.deepEqual(await paged({ OwnerIds: ['self'] }), [...mine.ids].sort());
  assert.deepEqual(await paged({ OwnerIds: ['000000000002'] }), [...shared].sort());
  assert.deepEqual(await paged({ OwnerIds: ['self', '000000000002'] }), [...mine.ids, ...shared].sort());
  const of = (volume: string) => [{ Name: 'volume-id', Values: [volume] }];
  assert.deepEqual(await paged({ Filters: of(mine.volumes[1]) }), [mine.ids[1], mine.ids[4]].sort());
  assert.deepEqual(await paged({ Filters: of(bobs.volumes[0]) }), [bobs.ids[0], bobs.ids[3]].sort());
  const inState = (state: string) => [{ Name: 'status', Values: [state] }];
  assert.deepEqual(await paged({ Filters: inState('completed') }), [...mine.ids, ...shared].sort());
  assert.deepEqual(await paged({ Filters: inState('pending') }), []);
});
