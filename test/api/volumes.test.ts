import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, test } from 'node:test';
import {
  AttachVolumeCommand,
  CreateVolumeCommand,
  DescribeVolumeAttributeCommand,
  DescribeVolumeStatusCommand,
  DescribeVolumesCommand,
  DescribeVolumesModificationsCommand,
  DetachVolumeCommand,
  ModifyVolumeAttributeCommand,
  ModifyVolumeCommand,
  StopInstancesCommand,
  TerminateInstancesCommand,
} from '@aws-sdk/client-ec2';
import { FileCleanup } from '../support/cleanup.ts';
import { createSnapshots, ended, launchInstance, type TestInstance } from '../support/instances.ts';
import { startTestServer, type TestServer } from '../support/server.ts';

const GIB = 1024 ** 3;

let server: TestServer;
let instance: TestInstance;
const file = new FileCleanup();
before(async () => {
  server = await startTestServer(file);
  instance = await launchInstance(server.ec2, [1]);
});
after(async () => {
  await server.stop();
  file.run();
});

test('a volume grows while clients are connected; they use the new end at once, and snapshots hold it', async () => {
  const [VolumeId] = instance.volumes;
  const client = await server.connect(VolumeId);
  const low = randomBytes(10_000);
  await client.write(GIB - 10_000, low);
  await assert.rejects(client.write(GIB, randomBytes(512)), { number: 28 });
  const before = await createSnapshots(server.ec2, instance.instanceId);
  const answer = await server.ec2.send(new ModifyVolumeCommand({ VolumeId, Size: 10, Iops: 4000 }));
  assert.equal(answer.VolumeModification?.ModificationState, 'completed');
  assert.equal(answer.VolumeModification?.OriginalSize, 1);
  assert.equal(answer.VolumeModification?.TargetSize, 10);
  const high = randomBytes(10_000);
  await client.write(10 * GIB - 10_000, high);
  const [volume] = (await server.ec2.send(new DescribeVolumesCommand({ VolumeIds: [VolumeId] }))).Volumes ?? [];
  assert.deepEqual([volume.Size, volume.Iops, volume.VolumeType], [10, 4000, 'gp3']);
  const again = await server.connect(VolumeId);
  assert.equal(again.sizeBytes, 10 * GIB);
  assert.ok((await again.read(10 * GIB - 10_000, 10_000)).equals(high));
  await again.close();
  const afterSnapshots = await createSnapshots(server.ec2, instance.instanceId);
  const sizes = [];
  for (const snapshot of [...(await ended(server.ec2, before)), ...(await ended(server.ec2, afterSnapshots))]) {
    assert.equal(snapshot.State, 'completed', snapshot.StateMessage ?? '');
    if (snapshot.VolumeId !== VolumeId) continue;
    sizes.push(snapshot.VolumeSize);
    const reader = await server.connect(snapshot.SnapshotId ?? '');
    assert.ok((await reader.read(GIB - 10_000, 10_000)).equals(low));
    if (snapshot.VolumeSize === 10) assert.ok((await reader.read(10 * GIB - 10_000, 10_000)).equals(high));
    await reader.close();
  }
  assert.deepEqual(sizes, [1, 10]);
  await client.close();
  const listed = await server.ec2.send(
    new DescribeVolumesModificationsCommand({ Filters: [{ Name: 'modification-state', Values: ['completed'] }] }),
  );
  assert.deepEqual(
    listed.VolumesModifications?.map((each) => each.VolumeId),
    [VolumeId],
  );
  await assert.rejects(server.ec2.send(new ModifyVolumeCommand({ VolumeId, Size: 2 })), {
    name: 'InvalidParameterValue',
    message: /New size cannot be smaller than existing size/,
  });
  await assert.rejects(server.ec2.send(new ModifyVolumeCommand({ VolumeId })), { name: 'InvalidParameterValue' });
  await assert.rejects(server.ec2.send(new DescribeVolumesModificationsCommand({ VolumeIds: [instance.root] })), {
    name: 'InvalidVolumeModification.NotFound',
  });
});

test('a restored volume may be larger than its snapshot, and grow while it is hydrating', async () => {
  const snapshots = await ended(server.ec2, await createSnapshots(server.ec2, instance.instanceId));
  const source = snapshots.find((snapshot) => snapshot.VolumeId === instance.root)?.SnapshotId;
  const made = await server.ec2.send(
    new CreateVolumeCommand({ AvailabilityZone: 'us-east-1a', SnapshotId: source, Size: 2, VolumeType: 'gp3' }),
  );
  await server.ec2.send(new ModifyVolumeCommand({ VolumeId: made.VolumeId, Size: 4 }));
  // Of two that are named the second is on the second page, and not missing.
  const modified = [made.VolumeId ?? '', instance.volumes[0]].sort();
  const describe = { VolumeIds: modified, MaxResults: 1 };
  const first = await server.ec2.send(new DescribeVolumesModificationsCommand(describe));
  const second = await server.ec2.send(
    new DescribeVolumesModificationsCommand({ ...describe, NextToken: first.NextToken }),
  );
  const pages = [first, second].map(({ VolumesModifications = [] }) =>
    VolumesModifications.map((each) => each.VolumeId),
  );
  assert.deepEqual(pages, [[modified[0]], [modified[1]]]);
  await server.ec2.send(
    new AttachVolumeCommand({ VolumeId: made.VolumeId, InstanceId: instance.instanceId, Device: '/dev/sdy' }),
  );
  const client = await server.connect(made.VolumeId ?? '');
  assert.equal(client.sizeBytes, 4 * GIB);
  await client.write(4 * GIB - 512, Buffer.alloc(512, 7));
  assert.ok((await client.read(4 * GIB - 512, 512)).equals(Buffer.alloc(512, 7)));
  assert.ok((await client.read(2 * GIB, 4096)).equals(Buffer.alloc(4096)));
  await client.close();
});

test('multi-attach: io2 volumes, several instances, one export until the last lets go', async () => {
  const other = await launchInstance(server.ec2, []);
  const made = await server.ec2.send(
    new CreateVolumeCommand({
      AvailabilityZone: 'us-east-1a',
      Size: 4,
      VolumeType: 'io2',
      Iops: 100,
      MultiAttachEnabled: true,
    }),
  );
  const VolumeId = made.VolumeId ?? '';
  const attach = (InstanceId: string) =>
    server.ec2.send(new AttachVolumeCommand({ VolumeId, InstanceId, Device: '/dev/sdm' }));
  await attach(instance.instanceId);
  await assert.rejects(attach(instance.instanceId), { name: 'VolumeInUse' });
  await attach(other.instanceId);
  const [shown] = (await server.ec2.send(new DescribeVolumesCommand({ VolumeIds: [VolumeId] }))).Volumes ?? [];
  assert.equal(shown.MultiAttachEnabled, true);
  assert.equal(shown.Attachments?.length, 2);
  const modify = (more: object) => server.ec2.send(new ModifyVolumeCommand({ VolumeId, ...more }));
  await assert.rejects(modify({ MultiAttachEnabled: false }), { name: 'VolumeInUse' });
  await assert.rejects(modify({ VolumeType: 'gp3' }), { name: 'InvalidParameterCombination' });
  const client = await server.connect(VolumeId);
  await assert.rejects(server.ec2.send(new DetachVolumeCommand({ VolumeId })), { name: 'InvalidParameterCombination' });
  await server.ec2.send(new DetachVolumeCommand({ VolumeId, InstanceId: instance.instanceId }));
  await client.write(0, Buffer.alloc(512, 1));
  await server.ec2.send(new StopInstancesCommand({ InstanceIds: [other.instanceId] }));
  await assert.rejects(client.write(0, Buffer.alloc(512, 2)), /closed|EPIPE|ECONNRESET/);
  await server.ec2.send(new TerminateInstancesCommand({ InstanceIds: [other.instanceId] }));
  const [free] = (await server.ec2.send(new DescribeVolumesCommand({ VolumeIds: [VolumeId] }))).Volumes ?? [];
  assert.equal(free.State, 'available');
  await assert.rejects(
    server.ec2.send(new CreateVolumeCommand({ AvailabilityZone: 'us-east-1a', Size: 1, MultiAttachEnabled: true })),
    { name: 'InvalidParameterCombination' },
  );
});

test('status and attributes', async () => {
  const [VolumeId] = instance.volumes;
  const status = await server.ec2.send(new DescribeVolumeStatusCommand({ VolumeIds: [VolumeId] }));
  assert.equal(status.VolumeStatuses?.[0].VolumeStatus?.Status, 'ok');
  const read = () => server.ec2.send(new DescribeVolumeAttributeCommand({ VolumeId, Attribute: 'autoEnableIO' }));
  assert.equal((await read()).AutoEnableIO?.Value, false);
  await server.ec2.send(new ModifyVolumeAttributeCommand({ VolumeId, AutoEnableIO: { Value: true } }));
  assert.equal((await read()).AutoEnableIO?.Value, true);
});
