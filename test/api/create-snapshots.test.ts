import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import {
  AttachVolumeCommand,
  CreateTagsCommand,
  CreateVolumeCommand,
  DeleteSnapshotCommand,
  DescribeSnapshotsCommand,
  DescribeTagsCommand,
  DescribeVolumesCommand,
  DetachVolumeCommand,
  type InstanceSpecification,
  RunInstancesCommand,
  StopInstancesCommand,
  TerminateInstancesCommand,
  waitUntilSnapshotCompleted,
} from '@aws-sdk/client-ec2';
import { FileCleanup } from '../support/cleanup.ts';
import { createSnapshots, EMPTY_IMAGE, ended, launchInstance, type TestInstance } from '../support/instances.ts';
import { startTestServer, type TestServer } from '../support/server.ts';

let server: TestServer;
let instance: TestInstance;
const file = new FileCleanup();
before(async () => {
  server = await startTestServer(file);
  instance = await launchInstance(server.ec2, [1, 2]);
});
after(async () => {
  assert.equal(await server.stop(), 0);
  file.run();
});

const specification = (more = {}): { InstanceSpecification: InstanceSpecification } => ({
  InstanceSpecification: { InstanceId: instance.instanceId, ...more },
});

test('one snapshot for each attached volume, with every field of the answer', async () => {
  const called = Date.now();
  const snapshots = await createSnapshots(server.ec2, instance.instanceId, {
    Description: 'before the upgrade',
    TagSpecifications: [{ ResourceType: 'snapshot', Tags: [{ Key: 'purpose', Value: 'upgrade' }] }],
  });
  assert.deepEqual(
    new Set(snapshots.map((snapshot) => snapshot.VolumeId)),
    new Set([instance.root, ...instance.volumes]),
  );
  for (const snapshot of snapshots) {
    assert.match(snapshot.SnapshotId ?? '', /^snap-[0-9a-f]{17}$/);
    assert.equal(snapshot.Description, 'before the upgrade');
    assert.deepEqual(snapshot.Tags, [{ Key: 'purpose', Value: 'upgrade' }]);
    assert.equal(snapshot.Encrypted, false);
    assert.equal(snapshot.State, 'pending');
    assert.equal(snapshot.VolumeSize, snapshot.VolumeId === instance.volumes[1] ? 2 : 1);
    assert.match(snapshot.Progress ?? '', /^\d+%$/);
    assert.equal(snapshot.OwnerId, '000000000001');
    assert.equal(snapshot.StartTime?.getTime(), snapshots[0].StartTime?.getTime(), 'one instant, one time');
    assert.ok(Math.abs((snapshot.StartTime?.getTime() ?? 0) - called) < 60_000);
  }
  const ids = snapshots.map((snapshot) => snapshot.SnapshotId ?? '');
  await waitUntilSnapshotCompleted(
    { client: server.ec2, maxWaitTime: 30, minDelay: 1, maxDelay: 1 },
    { SnapshotIds: ids },
  );
  for (const snapshot of await ended(server.ec2, snapshots)) {
    assert.equal(snapshot.State, 'completed');
    assert.equal(snapshot.Progress, '100%');
    assert.ok(snapshot.CompletionTime !== undefined);
    assert.deepEqual(snapshot.Tags, [{ Key: 'purpose', Value: 'upgrade' }]);
  }
});

test('the boot volume and chosen data volumes can be left out', async () => {
  const noBoot = await createSnapshots(server.ec2, instance.instanceId, specification({ ExcludeBootVolume: true }));
  assert.deepEqual(noBoot.map((each) => each.VolumeId).sort(), [...instance.volumes].sort());
  const [left, out] = instance.volumes;
  const one = await createSnapshots(
    server.ec2,
    instance.instanceId,
    specification({ ExcludeBootVolume: true, ExcludeDataVolumeIds: [out] }),
  );
  assert.deepEqual(
    one.map((each) => each.VolumeId),
    [left],
  );
});

test("the volume's tags are copied, and the request's win", async () => {
  const [volume] = instance.volumes;
  await server.ec2.send(
    new CreateTagsCommand({
      Resources: [volume],
      Tags: [
        { Key: 'team', Value: 'storage' },
        { Key: 'stage', Value: 'from the volume' },
      ],
    }),
  );
  const snapshots = await createSnapshots(server.ec2, instance.instanceId, {
    CopyTagsFromSource: 'volume',
    TagSpecifications: [{ ResourceType: 'snapshot', Tags: [{ Key: 'stage', Value: 'from the request' }] }],
  });
  const tagged = snapshots.find((each) => each.VolumeId === volume);
  assert.deepEqual(
    new Map(tagged?.Tags?.map((tag) => [tag.Key, tag.Value])),
    new Map([
      ['team', 'storage'],
      ['stage', 'from the request'],
    ]),
  );
  const root = snapshots.find((each) => each.VolumeId === instance.root);
  assert.deepEqual(root?.Tags, [{ Key: 'stage', Value: 'from the request' }]);
  const plain = await createSnapshots(server.ec2, instance.instanceId);
  assert.equal(plain.find((each) => each.VolumeId === volume)?.Tags, undefined, 'not copied unless asked for');
});

test('a dry run answers DryRunOperation and changes nothing', async () => {
  const before = (await server.ec2.send(new DescribeSnapshotsCommand({ OwnerIds: ['self'] }))).Snapshots?.length;
  const failure = await createSnapshots(server.ec2, instance.instanceId, { DryRun: true }).catch((error) => error);
  assert.equal(failure.name, 'DryRunOperation');
  assert.equal(failure.$metadata.httpStatusCode, 412);
  const afterwardsCount = (await server.ec2.send(new DescribeSnapshotsCommand({ OwnerIds: ['self'] }))).Snapshots
    ?.length;
  assert.equal(afterwardsCount, before);
});

test('a stopped instance can be snapshotted; it has no writers, and the same promise', async () => {
  const other = await launchInstance(server.ec2, [1]);
  const client = await server.connect(other.volumes[0]);
  await client.write(4096, Buffer.alloc(4096, 0x5a));
  await client.close();
  await server.ec2.send(new StopInstancesCommand({ InstanceIds: [other.instanceId] }));
  await assert.rejects(server.connect(other.volumes[0]), /there is no export/);
  const snapshots = await ended(server.ec2, await createSnapshots(server.ec2, other.instanceId));
  const snapshot = snapshots.find((each) => each.VolumeId === other.volumes[0]);
  const reader = await server.connect(snapshot?.SnapshotId ?? '');
  assert.ok((await reader.read(4096, 4096)).equals(Buffer.alloc(4096, 0x5a)));
  await reader.close();
});

test('a pending snapshot can be deleted, and what it owed passes to the next', async () => {
  const other = await launchInstance(server.ec2, [1]);
  const [volume] = other.volumes;
  const client = await server.connect(volume);
  await client.write(0, Buffer.alloc(8 * 1024 * 1024, 1));
  const first = await createSnapshots(server.ec2, other.instanceId, {
    InstanceSpecification: { InstanceId: other.instanceId, ExcludeBootVolume: true },
  });
  await server.ec2.send(new DeleteSnapshotCommand({ SnapshotId: first[0].SnapshotId }));
  await client.write(1024 * 1024, Buffer.alloc(4096, 2));
  const second = await createSnapshots(server.ec2, other.instanceId, {
    InstanceSpecification: { InstanceId: other.instanceId, ExcludeBootVolume: true },
  });
  const [whole] = await ended(server.ec2, second);
  assert.equal(whole.State, 'completed');
  const reader = await server.connect(whole.SnapshotId ?? '');
  const expected = Buffer.alloc(8 * 1024 * 1024, 1);
  expected.fill(2, 1024 * 1024, 1024 * 1024 + 4096);
  assert.ok((await reader.read(0, expected.length)).equals(expected));
  await reader.close();
  await client.close();
  await assert.rejects(server.ec2.send(new DescribeSnapshotsCommand({ SnapshotIds: [first[0].SnapshotId ?? ''] })), {
    name: 'InvalidSnapshot.NotFound',
  });
});

test('a deleted volume leaves its snapshots, pending ones too', async () => {
  const other = await launchInstance(server.ec2, [1]);
  const [volume] = other.volumes;
  const client = await server.connect(volume);
  const bytes = Buffer.alloc(24 * 1024 * 1024);
  for (let at = 0; at < bytes.length; at += 4) bytes.writeUInt32LE((at * 2_654_435_761) >>> 0, at);
  await client.write(0, bytes);
  await client.close();
  const snapshots = await createSnapshots(server.ec2, other.instanceId);
  await server.ec2.send(new TerminateInstancesCommand({ InstanceIds: [other.instanceId] }));
  const done = await ended(server.ec2, snapshots);
  assert.deepEqual(
    done.map((snapshot) => snapshot.State),
    ['completed', 'completed'],
  );
  const reader = await server.connect(done.find((snapshot) => snapshot.VolumeId === volume)?.SnapshotId ?? '');
  assert.ok((await reader.read(0, bytes.length)).equals(bytes));
  await reader.close();
  for (;;) {
    const gone = await server.ec2
      .send(new DescribeVolumesCommand({ VolumeIds: [volume] }))
      .catch((error) => error.name);
    if (gone === 'InvalidVolume.NotFound') break;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
});

test('an instance without volumes, and one whose volumes are all excluded, are told so', async () => {
  const bare = await server.ec2.send(
    new RunInstancesCommand({
      ImageId: EMPTY_IMAGE,
      MinCount: 1,
      MaxCount: 1,
      BlockDeviceMappings: [{ DeviceName: '/dev/xvda', NoDevice: '' }],
    }),
  );
  const InstanceId = bare.Instances?.[0].InstanceId ?? '';
  await assert.rejects(createSnapshots(server.ec2, InstanceId), {
    name: 'InvalidParameterCombination',
    message: `The instance '${InstanceId}' has no attached volumes.`,
  });
  await assert.rejects(
    createSnapshots(
      server.ec2,
      instance.instanceId,
      specification({ ExcludeBootVolume: true, ExcludeDataVolumeIds: instance.volumes }),
    ),
    { name: 'InvalidParameterCombination', message: /Nothing is left to snapshot/ },
  );
});

test('filters and pages over snapshots', async () => {
  const all: string[] = [];
  let token: string | undefined;
  do {
    const page = await server.ec2.send(
      new DescribeSnapshotsCommand({ OwnerIds: ['self'], MaxResults: 5, ...(token ? { NextToken: token } : {}) }),
    );
    assert.ok((page.Snapshots?.length ?? 0) <= 5);
    all.push(...(page.Snapshots ?? []).map((snapshot) => snapshot.SnapshotId ?? ''));
    token = page.NextToken;
  } while (token !== undefined);
  assert.equal(new Set(all).size, all.length);
  const whole = await server.ec2.send(new DescribeSnapshotsCommand({ OwnerIds: ['self'] }));
  assert.deepEqual(
    all,
    (whole.Snapshots ?? []).map((snapshot) => snapshot.SnapshotId),
  );
  const tagged = await server.ec2.send(
    new DescribeSnapshotsCommand({
      Filters: [
        { Name: 'tag:purpose', Values: ['up*', 'x'] },
        { Name: 'volume-size', Values: ['2'] },
      ],
    }),
  );
  assert.equal(tagged.Snapshots?.length, 1);
  const tags = await server.ec2.send(new DescribeTagsCommand({ Filters: [{ Name: 'key', Values: ['team'] }] }));
  assert.ok((tags.Tags?.length ?? 0) >= 2);
});

test('detach ends the export, attach brings it to another instance', async () => {
  const there = await launchInstance(server.ec2, []);
  const made = await server.ec2.send(
    new CreateVolumeCommand({ AvailabilityZone: 'us-east-1a', Size: 1, VolumeType: 'gp3' }),
  );
  const VolumeId = made.VolumeId ?? '';
  await assert.rejects(server.connect(VolumeId), /there is no export/);
  await server.ec2.send(new AttachVolumeCommand({ VolumeId, InstanceId: instance.instanceId, Device: '/dev/sdz' }));
  const client = await server.connect(VolumeId);
  await client.write(0, Buffer.alloc(512, 9));
  await server.ec2.send(new DetachVolumeCommand({ VolumeId }));
  await assert.rejects(client.read(0, 512), /closed/);
  await server.ec2.send(new AttachVolumeCommand({ VolumeId, InstanceId: there.instanceId, Device: '/dev/sdb' }));
  const again = await server.connect(VolumeId);
  assert.ok((await again.read(0, 512)).equals(Buffer.alloc(512, 9)));
  await again.close();
});
