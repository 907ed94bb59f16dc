import {
  CreateSnapshotsCommand,
  type CreateSnapshotsCommandInput,
  DescribeSnapshotsCommand,
  type EC2Client,
  RunInstancesCommand,
  type Snapshot,
  type SnapshotInfo,
} from '@aws-sdk/client-ec2';

export const EMPTY_IMAGE = 'ami-00000000000000001';

export type TestInstance = { instanceId: string; root: string; volumes: string[] };

/** Launches an instance with a root volume and one data volume of each size (GiB). */
export async function launchInstance(ec2: EC2Client, sizesGiB: readonly number[]): Promise<TestInstance> {
  const answer = await ec2.send(
    new RunInstancesCommand({
      ImageId: EMPTY_IMAGE,
      MinCount: 1,
      MaxCount: 1,
      BlockDeviceMappings: [
        { DeviceName: '/dev/xvda', Ebs: { VolumeSize: 1 } },
        ...sizesGiB.map((VolumeSize, index) => ({
          DeviceName: `/dev/sd${String.fromCharCode('f'.charCodeAt(0) + index)}`,
          Ebs: { VolumeSize, VolumeType: 'gp3' as const },
        })),
      ],
    }),
  );
  const instance = answer.Instances?.[0];
  const mappings = instance?.BlockDeviceMappings ?? [];
  const volumeAt = (device: string): string =>
    mappings.find((mapping) => mapping.DeviceName === device)?.Ebs?.VolumeId ?? '';
  const data = mappings.map((mapping) => mapping.DeviceName ?? '').filter((name) => name.startsWith('/dev/sd'));
  return {
    instanceId: instance?.InstanceId ?? '',
    root: volumeAt('/dev/xvda'),
    volumes: data.sort().map(volumeAt),
  };
}

export async function createSnapshots(
  ec2: EC2Client,
  instanceId: string,
  more: Partial<CreateSnapshotsCommandInput> = {},
): Promise<SnapshotInfo[]> {
  const input = { InstanceSpecification: { InstanceId: instanceId }, ...more };
  return (await ec2.send(new CreateSnapshotsCommand(input))).Snapshots ?? [];
}

/** Waits until none of the snapshots is pending any more, and gives them as they then are. */
export async function ended(
  ec2: EC2Client,
  snapshots: readonly { SnapshotId?: string | undefined }[],
): Promise<Snapshot[]> {
  const SnapshotIds = snapshots.map((snapshot) => snapshot.SnapshotId ?? '');
  for (;;) {
    const found = (await ec2.send(new DescribeSnapshotsCommand({ SnapshotIds }))).Snapshots ?? [];
    if (found.every((snapshot) => snapshot.State !== 'pending')) return found;
    await new Promise((resolve) => setTimeout(resolve, 30));
  }
}
