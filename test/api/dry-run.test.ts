import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { CreateVolumeCommand, DescribeVolumesCommand, RunInstancesCommand } from '@aws-sdk/client-ec2';
import { OPERATIONS } from '../../src/api/operations.ts';
import { ec2Operations } from '../../src/wire/model.ts';
import { FileCleanup } from '../support/cleanup.ts';
import { EMPTY_IMAGE, launchInstance, type TestInstance } from '../support/instances.ts';
import { type Asked, askQuery } from '../support/query.ts';
import { startTestServer, type TestServer } from '../support/server.ts';

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

const SNAPSHOT = { SnapshotId: 'snap-0123456789abcdef0' };
const VOLUME = { VolumeId: 'vol-0123456789abcdef0' };
const INSTANCE = { InstanceId: 'i-0123456789abcdef0' };
const INSTANCES = { 'InstanceId.1': 'i-0123456789abcdef0' };
const IMAGE = { ImageId: EMPTY_IMAGE };

/** A well-formed request for each operation that needs more than its name. What they name need not exist. */
const REQUESTS: Record<string, Asked> = {
  AttachVolume: { ...VOLUME, ...INSTANCE, Device: '/dev/sdf' },
  CopySnapshot: { SourceRegion: 'us-east-1', SourceSnapshotId: SNAPSHOT.SnapshotId },
  CreateImage: { ...INSTANCE, Name: 'name' },
  CreateReplaceRootVolumeTask: INSTANCE,
  CreateSnapshot: VOLUME,
  CreateSnapshots: { 'InstanceSpecification.InstanceId': INSTANCE.InstanceId },
  CreateTags: { 'ResourceId.1': VOLUME.VolumeId, 'Tag.1.Key': 'k' },
  CreateVolume: { AvailabilityZone: 'us-east-1a', Size: '1' },
  DeleteSnapshot: SNAPSHOT,
  DeleteTags: { 'ResourceId.1': VOLUME.VolumeId },
  DeleteVolume: VOLUME,
  DeregisterImage: IMAGE,
  DescribeInstanceAttribute: { ...INSTANCE, Attribute: 'instanceType' },
  DescribeSnapshotAttribute: { ...SNAPSHOT, Attribute: 'createVolumePermission' },
  DescribeVolumeAttribute: { ...VOLUME, Attribute: 'autoEnableIO' },
  DetachVolume: VOLUME,
  EnableSnapshotBlockPublicAccess: { State: 'block-all-sharing' },
  LockSnapshot: { ...SNAPSHOT, LockMode: 'governance', LockDuration: '1' },
  ModifyEbsDefaultKmsKeyId: { KmsKeyId: 'alias/mine' },
  ModifyInstanceAttribute: { ...INSTANCE, 'InstanceType.Value': 't3.micro' },
  ModifySnapshotAttribute: { ...SNAPSHOT, 'UserId.1': '000000000002', OperationType: 'add' },
  ModifySnapshotTier: { ...SNAPSHOT, StorageTier: 'archive' },
  ModifyVolume: { ...VOLUME, Size: '2' },
  ModifyVolumeAttribute: { ...VOLUME, 'AutoEnableIO.Value': 'true' },
  RebootInstances: INSTANCES,
  RegisterImage: {
    Name: 'name',
    RootDeviceName: '/dev/xvda',
    'BlockDeviceMapping.1.DeviceName': '/dev/xvda',
    'BlockDeviceMapping.1.Ebs.SnapshotId': SNAPSHOT.SnapshotId,
  },
  ResetSnapshotAttribute: { ...SNAPSHOT, Attribute: 'createVolumePermission' },
  RestoreSnapshotFromRecycleBin: SNAPSHOT,
  RestoreSnapshotTier: { ...SNAPSHOT, PermanentRestore: 'true' },
  RunInstances: { ...IMAGE, MinCount: '1', MaxCount: '1' },
  StartInstances: INSTANCES,
  StopInstances: INSTANCES,
  TerminateInstances: INSTANCES,
  UnlockSnapshot: SNAPSHOT,
};

const model = ec2Operations();
for (const action of Object.keys(OPERATIONS)) {
  const members = [...(model.get(action)?.input.structIterator() ?? [])].map(([member]) => member);
  if (!members.includes('DryRun')) continue;
  test(`${action} with DryRun answers DryRunOperation`, async () => {
    const answer = await askQuery(server, { action, ...REQUESTS[action], DryRun: 'true' });
    assert.deepEqual([answer.status, answer.code], [412, 'DryRunOperation'], answer.body);
  });
}

test('after all the dry runs there is what there was', async () => {
  const { Volumes = [] } = await server.ec2.send(new DescribeVolumesCommand({}));
  assert.deepEqual(new Set(Volumes.map((volume) => volume.VolumeId)), new Set([instance.root, ...instance.volumes]));
});

test('a client token makes a call that is made again give what it gave, and refuses another under its name', async () => {
  const create = (Size: number) =>
    server.ec2.send(new CreateVolumeCommand({ AvailabilityZone: 'us-east-1a', Size, ClientToken: 'volume-1' }));
  const [first, second] = await Promise.all([create(1), create(1)]);
  assert.equal(first.VolumeId, second.VolumeId);
  await assert.rejects(create(2), { name: 'IdempotentParameterMismatch' });
  const run = (MaxCount: number) =>
    server.ec2.send(new RunInstancesCommand({ ImageId: EMPTY_IMAGE, MinCount: 1, MaxCount, ClientToken: 'run-1' }));
  const [one, two] = await Promise.all([run(2), run(2)]);
  assert.deepEqual(
    one.Instances?.map((each) => each.InstanceId),
    two.Instances?.map((each) => each.InstanceId),
  );
  assert.equal(one.Instances?.length, 2);
  await assert.rejects(run(3), { name: 'IdempotentParameterMismatch' });
});
