/**
 * How cost grows: with the size of the volume (1 GiB to 16 TiB, sparse), with the bytes that changed, with the snapshots in
 * a lineage, and with the number of volumes. Draws docs/plots/*.svg.
 *
 *   node bench/growth.ts [--lineage=1000]
 */
import { randomBytes } from 'node:crypto';
import { AttachVolumeCommand, CreateVolumeCommand, DescribeSnapshotsCommand } from '@aws-sdk/client-ec2';
import { NbdClient } from '../src/nbd/client.ts';
import { median, report, setting } from './support/figures.ts';
import { plot } from './support/plot.ts';
import { processTree, residentMiB } from './support/processes.ts';
import { type BenchServer, startBenchServer } from './support/server.ts';

const LINEAGE = setting('lineage', 1000);
const MIB = 1024 * 1024;
const ROUNDS = 3;

type Cost = { at: number; callMilliseconds: number; doneMilliseconds: number; mebibytes: number };
const figures: Record<string, Cost[]> = {};
const rows: (string | number)[][] = [];

async function snapshot(
  server: BenchServer,
  instanceId: string,
): Promise<{ call: number; done: number; ids: string[] }> {
  const begun = performance.now();
  const ids = await server.createSnapshots(instanceId);
  const call = performance.now() - begun;
  for (;;) {
    const { Snapshots = [] } = await server.ec2.send(new DescribeSnapshotsCommand({ SnapshotIds: ids }));
    if (Snapshots.every(({ State }) => State === 'completed')) break;
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
  return { call, done: performance.now() - begun, ids };
}

/** The median of a few snapshots, each after `change`. */
async function cost(
  server: BenchServer,
  instanceId: string,
  at: number,
  change: () => Promise<void>,
): Promise<Cost & { last: string }> {
  const taken = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    await change();
    taken.push(await snapshot(server, instanceId));
  }
  return {
    at,
    callMilliseconds: median(taken.map(({ call }) => call)),
    doneMilliseconds: median(taken.map(({ done }) => done)),
    mebibytes: Math.max(...residentMiB(processTree(server.pid))),
    last: taken.at(-1)?.ids[0] ?? '',
  };
}

function note(what: string, unit: string, { at, callMilliseconds, doneMilliseconds, mebibytes }: Cost): void {
  figures[what] = [...(figures[what] ?? []), { at, callMilliseconds, doneMilliseconds, mebibytes }];
  rows.push([what, `${at} ${unit}`, callMilliseconds.toFixed(1), doneMilliseconds.toFixed(1), Math.round(mebibytes)]);
}

const connect = (server: BenchServer, volume: string): Promise<NbdClient> =>
  NbdClient.connect({ socketPath: server.nbdSocket }, volume);

async function writeMiB(client: NbdClient, mebibytes: number): Promise<void> {
  for (let at = 0; at < mebibytes; at += 1) await client.write(at * MIB, randomBytes(MIB));
}

const firstBytes: [number, number][] = [];
for (const sizeGiB of [1, 16, 256, 4096, 16_384]) {
  const server = await startBenchServer();
  try {
    const { instanceId, volumes } = await server.launch([sizeGiB]);
    const client = await connect(server, volumes[0]);
    // At both ends: what lies between is never looked at.
    const { last, ...taken } = await cost(server, instanceId, sizeGiB, async () => {
      await writeMiB(client, 32);
      await client.write(sizeGiB * 1024 * MIB - MIB, randomBytes(MIB));
    });
    note('size', 'GiB', taken);
    await client.close();
    const begun = performance.now();
    const made = await server.ec2.send(new CreateVolumeCommand({ AvailabilityZone: 'us-east-1a', SnapshotId: last }));
    const attach = { VolumeId: made.VolumeId, InstanceId: instanceId, Device: '/dev/sdzz' };
    await server.ec2.send(new AttachVolumeCommand(attach));
    const restored = await connect(server, made.VolumeId ?? '');
    await restored.read(16 * MIB, 4096);
    firstBytes.push([sizeGiB, performance.now() - begun]);
    rows.push(['first byte of a restore', `${sizeGiB} GiB`, '', (performance.now() - begun).toFixed(1), '']);
    await restored.close();
  } finally {
    await server.stop();
  }
}

const server = await startBenchServer();
try {
  const { instanceId, volumes } = await server.launch([2]);
  const client = await connect(server, volumes[0]);
  for (const mebibytes of [1, 4, 16, 64, 256, 1024])
    note('changed', 'MiB', await cost(server, instanceId, mebibytes, () => writeMiB(client, mebibytes)));
  await client.close();
} finally {
  await server.stop();
}

const long = await startBenchServer();
try {
  const { instanceId, volumes } = await long.launch([2]);
  const client = await connect(long, volumes[0]);
  await writeMiB(client, 64);
  const marks = [1, 3, 10, 30, 100, 300, 1000].filter((mark) => mark <= LINEAGE);
  for (let made = 0; made < LINEAGE; ) {
    const next = marks.find((mark) => mark > made) ?? LINEAGE;
    for (; made < next - ROUNDS; made += 1) {
      await client.write((made % 128) * 4096, randomBytes(4096));
      await snapshot(long, instanceId);
    }
    const taken = await cost(long, instanceId, next, () => client.write((made % 128) * 4096, randomBytes(4096)));
    made = Math.max(next, made + ROUNDS);
    note('lineage', 'snapshots', taken);
  }
  await client.close();
} finally {
  await long.stop();
}

for (const count of [1, 2, 4, 8, 16, 32]) {
  const many = await startBenchServer();
  try {
    const { instanceId, volumes } = await many.launch(new Array<number>(count).fill(1));
    const clients = await Promise.all(volumes.map((volume) => connect(many, volume)));
    note(
      'volumes',
      'volumes',
      await cost(many, instanceId, count, async () => {
        for (const client of clients) await writeMiB(client, 8);
      }),
    );
    for (const client of clients) await client.close();
  } finally {
    await many.stop();
  }
}

const points = (what: string, of: 'callMilliseconds' | 'doneMilliseconds' | 'mebibytes'): [number, number][] =>
  figures[what].map((each) => [each.at, each[of]]);
const times = (what: string) => [
  { name: 'the call answers', points: points(what, 'callMilliseconds') },
  { name: 'completed', points: points(what, 'doneMilliseconds') },
];
plot('size', {
  title: 'A snapshot of 33 MiB of changes, by size of the volume',
  x: 'GiB',
  y: 'milliseconds',
  series: [...times('size'), { name: 'first byte of a restore', points: firstBytes }],
});
plot('changed', { title: 'A snapshot, by changed bytes', x: 'MiB', y: 'milliseconds', series: times('changed') });
plot('lineage', {
  title: 'A snapshot of one page, by its lineage',
  x: 'snapshots',
  y: 'milliseconds',
  series: times('lineage'),
});
plot('volumes', { title: 'A set, 8 MiB in each volume', x: 'volumes', y: 'milliseconds', series: times('volumes') });
plot('memory', {
  title: 'The largest process',
  x: 'GiB; or volumes',
  y: 'MiB',
  series: [
    { name: 'by size (GiB)', points: points('size', 'mebibytes') },
    { name: 'by volumes', points: points('volumes', 'mebibytes') },
  ],
});
report('growth', ['with', 'at', 'call (ms)', 'completed (ms)', 'largest process (MiB)'], rows, { figures, firstBytes });
