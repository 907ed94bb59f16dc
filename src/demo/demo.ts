import { createHash, randomBytes } from 'node:crypto';
import {
  CreateSnapshotsCommand,
  DescribeSnapshotsCommand,
  type InstanceBlockDeviceMapping,
  RunInstancesCommand,
  type SnapshotInfo,
} from '@aws-sdk/client-ec2';
import type { RestoredSet } from '../admin/restore-set.ts';
import type { SetReport } from '../admin/sets.ts';
import type { VolumeReport } from '../admin/volumes.ts';
import { EMPTY_IMAGE_ID } from '../catalog/seed-image.ts';
import type { NbdClient } from '../nbd/client.ts';
import { formatBytes, GIB, MIB } from '../types/units.ts';
import { CausalWriters, type Clock } from './causal-writers.ts';
import { type DemoServer, startDemoServer } from './demo-server.ts';

const FILLED_BYTES = 64 * MIB;
/** The writers' records lie beyond the filling. */
const CHAINS = 4;
/** The root first. */
const DEVICES = ['/dev/xvda', '/dev/sdf', '/dev/sdg'];

/** How the demo tells what it does: a line, or how far something long has come (0 to 1). */
export type Narrator = { say: (line: string) => void; progress: (what: string, share: number) => void };

type CutSet = { snapshots: SnapshotInfo[]; before: Clock; after: Clock };

/**
 * The main job, for real: an instance with three volumes, a writer that writes to all of them, snapshots in mid-write,
 * a restore of the whole set, and the proof. Every figure it tells is measured in this run.
 * @param signal stops the server, and the demo with it
 * @throws when the proof fails
 */
export async function runDemo(dataDir: string, { say, progress }: Narrator, signal: AbortSignal): Promise<void> {
  const begun = performance.now();
  const server = await startDemoServer(dataDir, signal);
  try {
    say(`The server is up (${since(begun)}): EC2 API at ${server.apiUrl}, volumes over NBD.`);
    const { instanceId, volumeIds } = await launch(server);
    say(`Launched ${instanceId} with three volumes of 1 GiB: ${volumeIds.join(', ')}.`);
    await fill(server, volumeIds);
    say(`Wrote ${formatBytes(FILLED_BYTES)} to each volume, half of it random, half like text.`);

    const writers = await startWriters(server, volumeIds);
    await pause(1500);
    say(`${CHAINS} writers write to all three, each write issued when the last is acknowledged.`);

    const first = await cut(server, instanceId, writers);
    const firstReport = await upload(server, first, 'first set', progress);
    tellSet(say, 'First set', firstReport);
    await pause(1000);
    const second = await cut(server, instanceId, writers);
    const secondReport = await upload(server, second, 'second set', progress);
    tellSet(say, 'Second set (incremental)', secondReport);
    const gap = writers.longestGapMilliseconds;
    say(
      `Writes so far: ${writers.writes}, ${Math.round(writers.writesPerSecond)} a second; longest wait for one: ${gap.toFixed(1)} ms.`,
    );

    const apart = await cutApart(server, instanceId, volumeIds, writers);
    await writers.stop();

    const restoredAt = performance.now();
    const restored = await server.admin.ask<RestoredSet>('restore-set', { setId: secondReport.setId });
    const clients = await connectRestored(server, restored, secondReport, volumeIds);
    await clients[0].read(0, 4096);
    say(`Restored the second set as ${restored.instanceId}: first byte after ${since(restoredAt)}, blocks on demand.`);
    await hydrated(server, restored, progress);
    say(`Hydrated in the background: all local after ${since(restoredAt)}.`);

    await prove(say, writers, [
      { set: second, clients },
      { set: first, clients: await connectSnapshots(server, firstReport, volumeIds) },
    ]);
    await compareWhole(server, say, clients, secondReport, volumeIds);
    await tellApart(server, say, writers, apart);
  } finally {
    await server.stop();
  }
  say(`Done in ${since(begun)}.`);
}

async function launch(server: DemoServer): Promise<{ instanceId: string; volumeIds: string[] }> {
  const Ebs = { VolumeSize: 1, VolumeType: 'gp3' as const };
  const answer = await server.ec2.send(
    new RunInstancesCommand({
      ImageId: EMPTY_IMAGE_ID,
      MinCount: 1,
      MaxCount: 1,
      BlockDeviceMappings: DEVICES.map((DeviceName) => ({ DeviceName, Ebs })),
    }),
  );
  const instance = answer.Instances?.[0];
  const mappings: InstanceBlockDeviceMapping[] = instance?.BlockDeviceMappings ?? [];
  const volumeAt = (device: string): string =>
    mappings.find((mapping) => mapping.DeviceName === device)?.Ebs?.VolumeId ?? '';
  return { instanceId: instance?.InstanceId ?? '', volumeIds: DEVICES.map(volumeAt) };
}

async function fill(server: DemoServer, volumeIds: readonly string[]): Promise<void> {
  const text = Buffer.alloc(MIB, 'It was the best of times, it was the worst of times, it was the age of wisdom. ');
  for (const volumeId of volumeIds) {
    const client = await server.connect(volumeId);
    for (let at = 0; at < FILLED_BYTES; at += 2 * MIB) {
      await client.write(CausalWriters.areaBytes(CHAINS) + at, randomBytes(MIB));
      await client.write(CausalWriters.areaBytes(CHAINS) + at + MIB, text);
    }
    await client.flush();
    await client.close();
  }
}

async function startWriters(server: DemoServer, volumeIds: readonly string[]): Promise<CausalWriters> {
  const connections: NbdClient[][] = [];
  for (const volumeId of volumeIds) connections.push([await server.connect(volumeId), await server.connect(volumeId)]);
  const writers = new CausalWriters(connections, CHAINS, Math.random);
  writers.start();
  return writers;
}

async function cut(server: DemoServer, instanceId: string, writers: CausalWriters): Promise<CutSet> {
  const before = writers.clock();
  const answer = await server.ec2.send(
    new CreateSnapshotsCommand({ InstanceSpecification: { InstanceId: instanceId }, Description: 'cleancut demo' }),
  );
  return { before, after: writers.clock(), snapshots: answer.Snapshots ?? [] };
}

async function upload(
  server: DemoServer,
  set: CutSet,
  what: string,
  progress: Narrator['progress'],
): Promise<SetReport> {
  await settled(
    server,
    set.snapshots.map((snapshot) => snapshot.SnapshotId ?? ''),
    (share) => progress(`uploading the ${what}`, share),
  );
  const { sets } = await server.admin.ask<{ sets: SetReport[] }>('sets');
  const report = sets.find((each) =>
    each.snapshots.some(({ snapshotId }) => snapshotId === set.snapshots[0].SnapshotId),
  );
  if (report === undefined) throw new Error('the set is not in the list of sets');
  return report;
}

async function settled(server: DemoServer, ids: string[], onShare: (share: number) => void): Promise<void> {
  for (;;) {
    const { Snapshots = [] } = await server.ec2.send(new DescribeSnapshotsCommand({ SnapshotIds: ids }));
    const failed = Snapshots.find((snapshot) => snapshot.State === 'error');
    if (failed !== undefined) throw new Error(`${failed.SnapshotId} failed: ${failed.StateMessage}`);
    const shares = Snapshots.map((snapshot) => Number.parseInt(snapshot.Progress ?? '0', 10) / 100);
    onShare(shares.reduce((sum, share) => sum + share, 0) / shares.length);
    if (Snapshots.every((snapshot) => snapshot.State === 'completed')) return;
    await pause(50);
  }
}

function tellSet(say: Narrator['say'], name: string, report: SetReport): void {
  const sum = (read: (snapshot: SetReport['snapshots'][number]) => number): number =>
    report.snapshots.reduce((total, snapshot) => total + read(snapshot), 0);
  const data = formatBytes(sum((snapshot) => snapshot.dataBytes));
  const stored = formatBytes(sum((snapshot) => snapshot.storedBytes));
  const whole = formatBytes(sum((snapshot) => snapshot.sizeGiB) * GIB);
  say(
    `${name} ${report.setId}: writes held for ${report.holdMilliseconds.toFixed(1)} ms; ${stored} uploaded for ${data} of data in ${whole} of volumes.`,
  );
}

/** Three snapshots one after another, without the hold: what the promise protects from. */
async function cutApart(
  server: DemoServer,
  instanceId: string,
  volumeIds: readonly string[],
  writers: CausalWriters,
): Promise<CutSet> {
  const before = writers.clock();
  const snapshots: SnapshotInfo[] = [];
  for (const [index, volumeId] of volumeIds.entries()) {
    const ExcludeDataVolumeIds = volumeIds.filter((other, at) => at > 0 && other !== volumeId);
    const answer = await server.ec2.send(
      new CreateSnapshotsCommand({
        InstanceSpecification: { InstanceId: instanceId, ExcludeBootVolume: index > 0, ExcludeDataVolumeIds },
      }),
    );
    snapshots.push(...(answer.Snapshots ?? []));
  }
  return { before, after: writers.clock(), snapshots };
}

function connectRestored(
  server: DemoServer,
  restored: RestoredSet,
  report: SetReport,
  volumeIds: readonly string[],
): Promise<NbdClient[]> {
  return Promise.all(
    volumeIds.map((volumeId) => {
      const snapshot = report.snapshots.find((each) => each.volumeId === volumeId);
      const copy = restored.volumes.find((each) => each.snapshotId === snapshot?.snapshotId);
      return server.connect(copy?.volumeId ?? '');
    }),
  );
}

function connectSnapshots(server: DemoServer, report: SetReport, volumeIds: readonly string[]): Promise<NbdClient[]> {
  return Promise.all(
    volumeIds.map((volumeId) => {
      const snapshot = report.snapshots.find((each) => each.volumeId === volumeId);
      return server.connect(snapshot?.snapshotId ?? '');
    }),
  );
}

async function hydrated(server: DemoServer, restored: RestoredSet, progress: Narrator['progress']): Promise<void> {
  const ids = new Set(restored.volumes.map((volume) => volume.volumeId));
  for (;;) {
    const { volumes } = await server.admin.ask<{ volumes: VolumeReport[] }>('volumes');
    const shares = volumes.filter((volume) => ids.has(volume.volumeId)).map((volume) => volume.hydratedShare);
    progress('hydrating the restored volumes', shares.reduce((sum, share) => sum + share, 0) / shares.length);
    if (shares.every((share) => share === 1)) return;
    await pause(100);
  }
}

async function prove(
  say: Narrator['say'],
  writers: CausalWriters,
  sets: { set: CutSet; clients: NbdClient[] }[],
): Promise<void> {
  let violations: string[] = [];
  for (const { set, clients } of sets) {
    const found = await writers.check(
      (volume, offset, length) => clients[volume].read(offset, length),
      set.before,
      set.after,
    );
    violations = [...violations, ...found];
  }
  if (violations.length > 0)
    throw new Error(`the promise is broken: ${violations[0]} (${violations.length} violations)`);
  say(
    `Proof: in both sets every write has all its causes, all acknowledged before the call are in, none issued after it: 0 violations.`,
  );
}

async function compareWhole(
  server: DemoServer,
  say: Narrator['say'],
  clients: readonly NbdClient[],
  report: SetReport,
  volumeIds: readonly string[],
): Promise<void> {
  const snapshots = await connectSnapshots(server, report, volumeIds);
  for (const [index, volume] of clients.entries()) {
    const bytes = CausalWriters.areaBytes(CHAINS) + FILLED_BYTES;
    if ((await digest(volume, bytes)) !== (await digest(snapshots[index], bytes))) {
      throw new Error(`${volumeIds[index]}: the restored volume is not what the snapshot holds`);
    }
  }
  say('Proof: the restored volumes are bit-identical to the snapshots, read straight from the object store.');
}

async function digest(client: NbdClient, bytes: number): Promise<string> {
  const hash = createHash('sha256');
  for (let at = 0; at < bytes; at += 4 * MIB) hash.update(await client.read(at, Math.min(4 * MIB, bytes - at)));
  return hash.digest('hex');
}

async function tellApart(server: DemoServer, say: Narrator['say'], writers: CausalWriters, set: CutSet): Promise<void> {
  const ids = set.snapshots.map((snapshot) => snapshot.SnapshotId ?? '');
  await settled(server, ids, () => undefined);
  const clients = await Promise.all(ids.map((id) => server.connect(id)));
  const violations = await writers.check(
    (volume, offset, length) => clients[volume].read(offset, length),
    set.before,
    set.after,
  );
  say(`For comparison, the same volumes snapshotted one after another: ${violations.length} violations.`);
}

function since(begun: number): string {
  const milliseconds = performance.now() - begun;
  return milliseconds < 1000 ? `${milliseconds.toFixed(0)} ms` : `${(milliseconds / 1000).toFixed(1)} s`;
}

function pause(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}
