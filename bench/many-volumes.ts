/**
 * A server with many instances and volumes, all of them empty: how long it takes to launch them, to cut all the instances
 * at once (a set each), to end the uploads, to be there again after `kill -9`, and to end them; and what it needs.
 *
 *   node bench/many-volumes.ts [--instances=200] [--volumes=10]
 */
import { readdirSync } from 'node:fs';
import {
  CreateSnapshotsCommand,
  DescribeSnapshotsCommand,
  RunInstancesCommand,
  TerminateInstancesCommand,
} from '@aws-sdk/client-ec2';
import { EMPTY_IMAGE_ID } from '../src/catalog/seed-image.ts';
import { report, setting } from './support/figures.ts';
import { processTree, residentMiB } from './support/processes.ts';
import { startBenchServer } from './support/server.ts';

const INSTANCES = setting('instances', 200);
const VOLUMES = setting('volumes', 10);
/** As many as RunInstances takes. */
const MOST_IN_A_CALL = 100;
const LOOK_MILLISECONDS = 200;

let server = await startBenchServer();
const rows: (string | number)[][] = [];

async function time<Answer>(what: string, step: () => Promise<Answer>): Promise<Answer> {
  const begun = performance.now();
  const answer = await step();
  const seconds = ((performance.now() - begun) / 1000).toFixed(2);
  const pids = processTree(server.pid);
  const memory = Math.round(Math.max(...residentMiB(pids)));
  const files = Math.max(...pids.map((pid) => readdirSync(`/proc/${pid}/fd`).length));
  rows.push([what, seconds, memory, files]);
  return answer;
}

const devices = Array.from({ length: VOLUMES }, (_, index) => ({
  DeviceName: `/dev/sd${String.fromCharCode(98 + Math.floor(index / 26))}${String.fromCharCode(97 + (index % 26))}`,
  Ebs: { VolumeSize: 1 },
}));
const instances: string[] = [];
await time(`launch ${INSTANCES} instances with a root and ${VOLUMES} volumes`, async () => {
  while (instances.length < INSTANCES) {
    const count = Math.min(MOST_IN_A_CALL, INSTANCES - instances.length);
    const order = { ImageId: EMPTY_IMAGE_ID, MinCount: count, MaxCount: count, BlockDeviceMappings: devices };
    const { Instances = [] } = await server.ec2.send(new RunInstancesCommand(order));
    instances.push(...Instances.map(({ InstanceId = '' }) => InstanceId));
  }
});
await time('cut them all, in as many calls at once', () =>
  Promise.all(
    instances.map((InstanceId) =>
      server.ec2.send(new CreateSnapshotsCommand({ InstanceSpecification: { InstanceId } })),
    ),
  ),
);
await time('until all snapshots are completed', async () => {
  const pending = { OwnerIds: ['self'], Filters: [{ Name: 'status', Values: ['pending', 'error'] }], MaxResults: 5 };
  while ((await server.ec2.send(new DescribeSnapshotsCommand(pending))).Snapshots?.length !== 0) {
    await new Promise((resolve) => setTimeout(resolve, LOOK_MILLISECONDS));
  }
});
await server.kill();
await time('ready again after kill -9', async () => {
  server = await startBenchServer([], server.directory);
});
await time('terminate them', () => server.ec2.send(new TerminateInstancesCommand({ InstanceIds: instances })));
await server.stop();
report('many-volumes', ['what', 'seconds', 'largest process, MiB', 'open files of one'], rows, rows);
