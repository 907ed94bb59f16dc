import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, test } from 'node:test';
import {
  type BlockDeviceMapping,
  CreateImageCommand,
  CreateReplaceRootVolumeTaskCommand,
  DeleteSnapshotCommand,
  DeregisterImageCommand,
  DescribeImagesCommand,
  DescribeInstanceAttributeCommand,
  DescribeInstanceStatusCommand,
  DescribeInstancesCommand,
  DescribeInstanceTypesCommand,
  DescribeReplaceRootVolumeTasksCommand,
  DescribeSnapshotsCommand,
  DescribeVolumesCommand,
  EC2Client,
  ModifyInstanceAttributeCommand,
  RebootInstancesCommand,
  RegisterImageCommand,
  RunInstancesCommand,
  StartInstancesCommand,
  StopInstancesCommand,
  TerminateInstancesCommand,
  waitUntilImageAvailable,
  waitUntilInstanceRunning,
} from '@aws-sdk/client-ec2';
import type { NewUser } from '../../src/admin/users.ts';
import { FileCleanup } from '../support/cleanup.ts';
import { ended, launchInstance, type TestInstance } from '../support/instances.ts';
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

async function writeTo(volume: string, offset: number, bytes: Buffer): Promise<void> {
  const client = await server.connect(volume);
  await client.write(offset, bytes);
  await client.close();
}

async function readFrom(name: string, offset: number, length: number): Promise<Buffer> {
  const client = await server.connect(name);
  const bytes = await client.read(offset, length);
  await client.close();
  return bytes;
}

test('an image of an instance: cut, stored, launched from, taken off', async () => {
  const root = randomBytes(100_000);
  const data = randomBytes(100_000);
  await writeTo(instance.root, 4096, root);
  await writeTo(instance.volumes[0], 8192, data);
  const { ImageId = '' } = await server.ec2.send(
    new CreateImageCommand({
      InstanceId: instance.instanceId,
      Name: 'golden',
      NoReboot: true,
      TagSpecifications: [{ ResourceType: 'image', Tags: [{ Key: 'k', Value: 'v' }] }],
    }),
  );
  await waitUntilImageAvailable(
    { client: server.ec2, maxWaitTime: 20, minDelay: 1, maxDelay: 1 },
    { ImageIds: [ImageId] },
  );
  const [image] =
    (
      await server.ec2.send(
        new DescribeImagesCommand({ Owners: ['self'], Filters: [{ Name: 'name', Values: ['gold*'] }] }),
      )
    ).Images ?? [];
  assert.equal(image.ImageId, ImageId);
  assert.deepEqual(image.Tags, [{ Key: 'k', Value: 'v' }]);
  assert.deepEqual(
    image.BlockDeviceMappings?.map((each) => each.DeviceName),
    ['/dev/sdf', '/dev/xvda'],
  );
  const launched = await server.ec2.send(
    new RunInstancesCommand({
      ImageId,
      MinCount: 1,
      MaxCount: 1,
      BlockDeviceMappings: [{ DeviceName: '/dev/sdf', Ebs: { VolumeSize: 2 } }],
    }),
  );
  const copy = launched.Instances?.[0];
  await waitUntilInstanceRunning(
    { client: server.ec2, maxWaitTime: 20, minDelay: 1, maxDelay: 1 },
    { InstanceIds: [copy?.InstanceId ?? ''] },
  );
  const at = (device: string): string =>
    copy?.BlockDeviceMappings?.find((each) => each.DeviceName === device)?.Ebs?.VolumeId ?? '';
  assert.ok((await readFrom(at('/dev/xvda'), 4096, 100_000)).equals(root));
  assert.ok((await readFrom(at('/dev/sdf'), 8192, 100_000)).equals(data));
  const SnapshotId = image.BlockDeviceMappings?.[0].Ebs?.SnapshotId ?? '';
  await assert.rejects(server.ec2.send(new DeleteSnapshotCommand({ SnapshotId })), {
    name: 'InvalidSnapshot.InUse',
    message: `The snapshot ${SnapshotId} is currently in use by ${ImageId}`,
  });
  await assert.rejects(server.ec2.send(new CreateImageCommand({ InstanceId: instance.instanceId, Name: 'golden' })), {
    name: 'InvalidAMIName.Duplicate',
  });
  await server.ec2.send(new DeregisterImageCommand({ ImageId, DeleteAssociatedSnapshots: true }));
  await assert.rejects(server.ec2.send(new DescribeImagesCommand({ ImageIds: [ImageId] })), {
    name: 'InvalidAMIID.NotFound',
  });
  await assert.rejects(server.ec2.send(new DescribeSnapshotsCommand({ SnapshotIds: [SnapshotId] })), {
    name: 'InvalidSnapshot.NotFound',
  });
});

test('an image registered from a snapshot', async () => {
  const made = await server.ec2.send(new CreateImageCommand({ InstanceId: instance.instanceId, Name: 'first' }));
  const [image] = (await server.ec2.send(new DescribeImagesCommand({ ImageIds: [made.ImageId ?? ''] }))).Images ?? [];
  const SnapshotId = image.BlockDeviceMappings?.find((each) => each.DeviceName === '/dev/xvda')?.Ebs?.SnapshotId;
  await ended(server.ec2, [{ SnapshotId }]);
  const BlockDeviceMappings = [{ DeviceName: '/dev/sda1', Ebs: { SnapshotId, VolumeSize: 2 } }];
  const registered = await server.ec2.send(
    new RegisterImageCommand({
      Name: 'second',
      RootDeviceName: '/dev/sda1',
      BlockDeviceMappings,
      Architecture: 'x86_64',
    }),
  );
  const [second] =
    (await server.ec2.send(new DescribeImagesCommand({ ImageIds: [registered.ImageId ?? ''] }))).Images ?? [];
  assert.deepEqual(
    [second.State, second.RootDeviceName, second.BlockDeviceMappings?.[0].Ebs?.VolumeSize],
    ['available', '/dev/sda1', 2],
  );
  await assert.rejects(server.ec2.send(new RegisterImageCommand({ Name: 'third', RootDeviceName: '/dev/sda1' })), {
    name: 'InvalidParameterValue',
    message: /root device/,
  });
  await assert.rejects(
    server.ec2.send(new RegisterImageCommand({ Name: '!', RootDeviceName: '/dev/sda1', BlockDeviceMappings })),
    { name: 'InvalidAMIName.Malformed' },
  );
  const encrypted = (value: string) =>
    server.ec2.send(
      new DescribeImagesCommand({
        Filters: [
          { Name: 'name', Values: ['second'] },
          { Name: 'block-device-mapping.encrypted', Values: [value] },
        ],
      }),
    );
  assert.equal((await encrypted('false')).Images?.length, 1);
  assert.equal((await encrypted('true')).Images?.length, 0);
});

test('rates that were bought are part of an image, and of what is made of it', async () => {
  const { instanceId } = await launchInstance(server.ec2, []);
  const shapes = [
    { DeviceName: '/dev/sdf', Ebs: { VolumeSize: 4, VolumeType: 'io1', Iops: 150 } },
    { DeviceName: '/dev/sdg', Ebs: { VolumeSize: 20, VolumeType: 'gp3', Iops: 4000, Throughput: 250 } },
  ] as const;
  const launch = async (ImageId: string, BlockDeviceMappings: BlockDeviceMapping[] = []) => {
    const launched = await server.ec2.send(
      new RunInstancesCommand({ ImageId, MinCount: 1, MaxCount: 1, BlockDeviceMappings }),
    );
    const VolumeIds = (launched.Instances?.[0].BlockDeviceMappings ?? []).map(({ Ebs }) => Ebs?.VolumeId ?? '');
    const { Volumes = [] } = await server.ec2.send(new DescribeVolumesCommand({ VolumeIds }));
    return {
      InstanceId: launched.Instances?.[0].InstanceId,
      rates: Volumes.map((volume) => [
        volume.Attachments?.[0].Device,
        volume.VolumeType,
        volume.Iops,
        volume.Throughput,
      ]).sort(),
    };
  };
  const [described] =
    (await server.ec2.send(new DescribeInstancesCommand({ InstanceIds: [instanceId] }))).Reservations?.[0].Instances ??
    [];
  const first = await launch(described.ImageId ?? '', [...shapes]);
  const expected = [
    ['/dev/sdf', 'io1', 150, undefined],
    ['/dev/sdg', 'gp3', 4000, 250],
    ['/dev/xvda', 'gp3', 3000, 125],
  ];
  assert.deepEqual(first.rates, expected);
  const { ImageId = '' } = await server.ec2.send(
    new CreateImageCommand({ InstanceId: first.InstanceId, Name: 'with rates' }),
  );
  const [image] = (await server.ec2.send(new DescribeImagesCommand({ ImageIds: [ImageId] }))).Images ?? [];
  const mappings = image.BlockDeviceMappings ?? [];
  const shown = mappings.map(({ DeviceName, Ebs }) => [DeviceName, Ebs?.VolumeType, Ebs?.Iops, Ebs?.Throughput]);
  assert.deepEqual(shown, expected);
  await ended(
    server.ec2,
    mappings.map(({ Ebs }) => ({ SnapshotId: Ebs?.SnapshotId })),
  );
  assert.deepEqual((await launch(ImageId)).rates, expected);
  // Of another type, it has that type's own.
  const other = await launch(ImageId, [{ DeviceName: '/dev/sdf', Ebs: { VolumeType: 'gp3' } }]);
  assert.deepEqual(other.rates[0], ['/dev/sdf', 'gp3', 3000, 125]);
  const registered = await server.ec2.send(
    new RegisterImageCommand({
      Name: 'registered with rates',
      RootDeviceName: '/dev/sdf',
      BlockDeviceMappings: [
        { DeviceName: '/dev/sdf', Ebs: { SnapshotId: mappings[0].Ebs?.SnapshotId, VolumeType: 'io2', Iops: 500 } },
      ],
    }),
  );
  assert.deepEqual((await launch(registered.ImageId ?? '')).rates, [['/dev/sdf', 'io2', 500, undefined]]);
});

test('a deregistered image takes along only snapshots that its user may delete, and that no other image needs', async () => {
  const made = await server.ec2.send(new CreateImageCommand({ InstanceId: instance.instanceId, Name: 'shared' }));
  const [image] = (await server.ec2.send(new DescribeImagesCommand({ ImageIds: [made.ImageId ?? ''] }))).Images ?? [];
  const snapshots = image.BlockDeviceMappings?.map((each) => ({ SnapshotId: each.Ebs?.SnapshotId })) ?? [];
  await ended(server.ec2, snapshots);
  const register = async (Name: string) => {
    const BlockDeviceMappings = snapshots.map((Ebs, index) => ({ DeviceName: `/dev/sd${'fg'[index]}`, Ebs }));
    const answer = await server.ec2.send(
      new RegisterImageCommand({ Name, RootDeviceName: '/dev/sdf', BlockDeviceMappings }),
    );
    return answer.ImageId ?? '';
  };
  const second = await register('needs them as well');
  const deregister = async (client: EC2Client, ImageId: string): Promise<(string | undefined)[]> => {
    const answer = await client.send(new DeregisterImageCommand({ ImageId, DeleteAssociatedSnapshots: true }));
    return answer.DeleteSnapshotResults?.map(({ ReturnCode }) => ReturnCode) ?? [];
  };
  assert.deepEqual(await deregister(server.ec2, image.ImageId ?? ''), ['skipped', 'skipped']);
  const policy = JSON.stringify({
    Version: '2012-10-17',
    Statement: [
      { Effect: 'Allow', Action: 'ec2:*', Resource: '*' },
      { Effect: 'Deny', Action: 'ec2:DeleteSnapshot', Resource: '*' },
    ],
  });
  const user = await server.admin.ask<NewUser>('create-user', {
    accountId: '000000000001',
    userName: 'careful',
    policy,
  });
  const { region, endpoint } = { region: 'us-east-1', endpoint: server.apiUrl };
  const careful = new EC2Client({ region, endpoint, credentials: user });
  assert.deepEqual(await deregister(careful, second), ['missing-permissions', 'missing-permissions']);
  careful.destroy();
  const third = await register('the last');
  assert.deepEqual(await deregister(server.ec2, third), ['success', 'success']);
});

test('a reboot ends connections and loses nothing', async () => {
  const client = await server.connect(instance.volumes[0]);
  await client.write(0, Buffer.alloc(4096, 3));
  await server.ec2.send(new RebootInstancesCommand({ InstanceIds: [instance.instanceId] }));
  await assert.rejects(client.read(0, 512));
  assert.ok((await readFrom(instance.volumes[0], 0, 4096)).equals(Buffer.alloc(4096, 3)));
});

test('a root volume is replaced while the instance runs', async () => {
  const other = await launchInstance(server.ec2, []);
  await writeTo(other.root, 0, Buffer.alloc(512, 1));
  const image = await server.ec2.send(new CreateImageCommand({ InstanceId: other.instanceId, Name: 'before' }));
  const [found] = (await server.ec2.send(new DescribeImagesCommand({ ImageIds: [image.ImageId ?? ''] }))).Images ?? [];
  const SnapshotId = found.BlockDeviceMappings?.[0].Ebs?.SnapshotId ?? '';
  await ended(server.ec2, [{ SnapshotId }]);
  await writeTo(other.root, 0, Buffer.alloc(512, 2));
  const replace = (DeleteReplacedRootVolume: boolean) => {
    const order = { InstanceId: other.instanceId, SnapshotId, DeleteReplacedRootVolume, ClientToken: 'a new root' };
    return server.ec2.send(new CreateReplaceRootVolumeTaskCommand(order));
  };
  const answer = await replace(true);
  assert.equal(answer.ReplaceRootVolumeTask?.TaskState, 'succeeded');
  assert.deepEqual((await replace(true)).ReplaceRootVolumeTask, answer.ReplaceRootVolumeTask);
  await assert.rejects(replace(false), { name: 'IdempotentParameterMismatch' });
  const listed = await server.ec2.send(
    new DescribeReplaceRootVolumeTasksCommand({ Filters: [{ Name: 'instance-id', Values: [other.instanceId] }] }),
  );
  assert.equal(listed.ReplaceRootVolumeTasks?.length, 1);
  const [described] =
    (await server.ec2.send(new DescribeInstancesCommand({ InstanceIds: [other.instanceId] }))).Reservations?.[0]
      .Instances ?? [];
  const root = described.BlockDeviceMappings?.[0].Ebs?.VolumeId ?? '';
  assert.notEqual(root, other.root);
  assert.ok((await readFrom(root, 0, 512)).equals(Buffer.alloc(512, 1)));
  await assert.rejects(server.ec2.send(new DescribeVolumesCommand({ VolumeIds: [other.root] })), {
    name: 'InvalidVolume.NotFound',
  });
});

test('status, attributes, types, and protection from termination', async () => {
  const { instanceId } = await launchInstance(server.ec2, []);
  const InstanceIds = [instanceId];
  const status = await server.ec2.send(new DescribeInstanceStatusCommand({ InstanceIds }));
  assert.equal(status.InstanceStatuses?.[0].InstanceStatus?.Status, 'ok');
  const type = () =>
    server.ec2.send(new DescribeInstanceAttributeCommand({ InstanceId: instanceId, Attribute: 'instanceType' }));
  const retype = () =>
    server.ec2.send(
      new ModifyInstanceAttributeCommand({ InstanceId: instanceId, InstanceType: { Value: 't3.large' } }),
    );
  await assert.rejects(retype(), { name: 'IncorrectInstanceState' });
  await server.ec2.send(new StopInstancesCommand({ InstanceIds }));
  await retype();
  assert.equal((await type()).InstanceType?.Value, 't3.large');
  assert.equal((await server.ec2.send(new DescribeInstanceStatusCommand({ InstanceIds }))).InstanceStatuses?.length, 0);
  await server.ec2.send(new StartInstancesCommand({ InstanceIds }));
  const protect = (Value: boolean) =>
    server.ec2.send(new ModifyInstanceAttributeCommand({ InstanceId: instanceId, DisableApiTermination: { Value } }));
  await protect(true);
  await assert.rejects(server.ec2.send(new TerminateInstancesCommand({ InstanceIds })), {
    name: 'OperationNotPermitted',
  });
  await protect(false);
  const keep = (...devices: string[]) => {
    const BlockDeviceMappings = devices.map((DeviceName) => ({ DeviceName, Ebs: { DeleteOnTermination: false } }));
    return server.ec2.send(new ModifyInstanceAttributeCommand({ InstanceId: instanceId, BlockDeviceMappings }));
  };
  const goes = async (): Promise<boolean | undefined> => {
    const { Reservations } = await server.ec2.send(new DescribeInstancesCommand({ InstanceIds }));
    return Reservations?.[0].Instances?.[0].BlockDeviceMappings?.[0].Ebs?.DeleteOnTermination;
  };
  await assert.rejects(keep('/dev/xvda', '/dev/sdz'), { name: 'InvalidParameterValue' });
  assert.equal(await goes(), true, 'half of a call that was refused has stayed');
  await keep('/dev/xvda');
  assert.equal(await goes(), false);
  await server.ec2.send(new TerminateInstancesCommand({ InstanceIds }));
  const types = await server.ec2.send(new DescribeInstanceTypesCommand({ InstanceTypes: ['t3.micro'] }));
  assert.equal(types.InstanceTypes?.[0].MemoryInfo?.SizeInMiB, 1024);
});
