import type { ChildProcess } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { CreateSnapshotsCommand, DescribeSnapshotsCommand, EC2Client, RunInstancesCommand } from '@aws-sdk/client-ec2';
import { AdminClient } from '../../src/admin/admin-client.ts';
import { readCredentials } from '../../src/auth/credentials-file.ts';
import { EMPTY_IMAGE_ID } from '../../src/catalog/seed-image.ts';
import { spawnServer } from '../../src/server/spawn-server.ts';

export type BenchServer = {
  directory: string;
  apiUrl: string;
  nbdSocket: string;
  pid: number;
  admin: AdminClient;
  ec2: EC2Client;
  /** @returns the instance's id and its data volumes' */
  launch: (sizesGiB: readonly number[]) => Promise<{ instanceId: string; volumes: string[] }>;
  createSnapshots: (instanceId: string) => Promise<string[]>;
  waitFor: (snapshotIds: string[]) => Promise<void>;
  /** With kill -9: its directory stays. */
  kill: () => Promise<void>;
  stop: () => Promise<void>;
};

/** Of a benchmark that fails nothing is left running. */
const running = new Set<ChildProcess>();
process.once('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

/** A cleancut server as it comes, in a directory that goes with it: a new one, or one that another was killed in. */
export async function startBenchServer(
  flags: readonly string[] = [],
  directory = mkdtempSync(path.join(tmpdir(), 'cleancut-bench-')),
): Promise<BenchServer> {
  const { apiUrl, child, exited } = await spawnServer([
    '--data-dir',
    directory,
    '--port',
    '0',
    '--log-level',
    'error',
    '--pending-snapshots-per-volume',
    '0',
    '--snapshots-per-account',
    '0',
    ...flags,
  ]);
  running.add(child);
  void exited.then(() => running.delete(child));
  const credentials = readCredentials(`${directory}/credentials`);
  const ec2 = new EC2Client({ region: 'us-east-1', endpoint: apiUrl, credentials });
  return {
    directory,
    apiUrl,
    nbdSocket: `${directory}/nbd.sock`,
    pid: child.pid ?? 0,
    admin: new AdminClient({ apiUrl, region: 'us-east-1', credentials }),
    ec2,
    async launch(sizesGiB) {
      const devices = sizesGiB.map((VolumeSize, index) => ({
        DeviceName: `/dev/sd${String.fromCharCode(98 + Math.floor(index / 26))}${String.fromCharCode(97 + (index % 26))}`,
        Ebs: { VolumeSize, VolumeType: 'gp3' as const },
      }));
      const answer = await ec2.send(
        new RunInstancesCommand({ ImageId: EMPTY_IMAGE_ID, MinCount: 1, MaxCount: 1, BlockDeviceMappings: devices }),
      );
      const instance = answer.Instances?.[0];
      const data = (instance?.BlockDeviceMappings ?? []).filter((mapping) => mapping.DeviceName !== '/dev/xvda');
      return { instanceId: instance?.InstanceId ?? '', volumes: data.map((mapping) => mapping.Ebs?.VolumeId ?? '') };
    },
    async createSnapshots(InstanceId) {
      const answer = await ec2.send(
        new CreateSnapshotsCommand({ InstanceSpecification: { InstanceId, ExcludeBootVolume: true } }),
      );
      return (answer.Snapshots ?? []).map((snapshot) => snapshot.SnapshotId ?? '');
    },
    async waitFor(SnapshotIds) {
      const begun = performance.now();
      for (;;) {
        const { Snapshots = [] } = await ec2.send(new DescribeSnapshotsCommand({ SnapshotIds }));
        if (Snapshots.every((snapshot) => snapshot.State === 'completed')) return;
        // A question costs both sides some milliseconds of the processors that the uploads want.
        const pause = Math.max(50, (performance.now() - begun) / 20);
        await new Promise((resolve) => setTimeout(resolve, pause));
      }
    },
    async kill() {
      ec2.destroy();
      child.kill('SIGKILL');
      await exited;
    },
    async stop() {
      ec2.destroy();
      child.kill('SIGTERM');
      await exited;
      rmSync(directory, { recursive: true, force: true });
    },
  };
}
