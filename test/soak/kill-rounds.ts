/**
 * Rounds of load and kills against real processes: writers on three volumes (one of them encrypted), sets cut, deleted,
 * restored, archived, taken out of the recycle bin and collected meanwhile, then at a random moment `kill -9` of the server or of one worker, or a stop as an
 * operator does it; and everything is read back. Longer than a test should take:
 *
 *   node test/soak/kill-rounds.ts [--rounds=300 | --minutes=60] [--kills=1] [--seed=N]
 *
 * `--kills`: the chance that a round ends in one of these. With few, the processes live long, and their memory can be watched.
 */
import assert from 'node:assert/strict';
import { readFileSync, rmSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import {
  AttachVolumeCommand,
  CreateTagsCommand,
  CreateVolumeCommand,
  DeleteSnapshotCommand,
  DeleteVolumeCommand,
  DescribeSnapshotsCommand,
  DescribeSnapshotTierStatusCommand,
  ListSnapshotsInRecycleBinCommand,
  ModifySnapshotTierCommand,
  RestoreSnapshotFromRecycleBinCommand,
  RestoreSnapshotTierCommand,
  TerminateInstancesCommand,
} from '@aws-sdk/client-ec2';
import type { RestoredSet } from '../../src/admin/restore-set.ts';
import type { SetReport } from '../../src/admin/sets.ts';
import type { NbdClient } from '../../src/nbd/client.ts';
import { FileCleanup } from '../support/cleanup.ts';
import { createSnapshots, launchInstance } from '../support/instances.ts';
import { checkWithin, NumberedSlots, type Numbers, numbersOf } from '../support/numbered-slots.ts';
import { childrenOf } from '../support/processes.ts';
import { seededRandom } from '../support/random.ts';
import { readCredentials, startTestServer, type TestServer } from '../support/server.ts';
import { rest, send, sign } from '../support/signed-request.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';

const ENDED_MILLISECONDS = 120_000;
/** So many sets are kept; beyond them the oldest goes. */
const KEPT_SETS = 40;

const { values: flags } = parseArgs({
  options: {
    rounds: { type: 'string' },
    minutes: { type: 'string' },
    kills: { type: 'string' },
    seed: { type: 'string' },
  },
});
const until =
  flags.minutes === undefined ? Number.POSITIVE_INFINITY : performance.now() + Number(flags.minutes) * 60_000;
const rounds = flags.minutes === undefined ? Number(flags.rounds ?? 300) : Number.POSITIVE_INFINITY;
const killChance = Number(flags.kills ?? 1);
const seed = Number(flags.seed ?? Math.floor(Math.random() * 2 ** 31));
const random = seededRandom(seed);
const file = new FileCleanup();
const dataDir = temporaryDirectory(file);
const archive = temporaryDirectory(file);
const options = { dataDir, flags: ['--archive-store', `file://${archive}`] };
let server = await startTestServer(file, options);
process.stdout.write(
  `seed ${seed}, ${flags.minutes === undefined ? `${rounds} rounds` : `${flags.minutes} minutes`}\n`,
);

const instance = await launchInstance(server.ec2, [1, 1]);
const encrypted = await server.ec2.send(
  new CreateVolumeCommand({ AvailabilityZone: 'us-east-1a', Size: 1, Encrypted: true }),
);
const volumes = [...instance.volumes, encrypted.VolumeId ?? ''];
await server.ec2.send(
  new AttachVolumeCommand({ VolumeId: volumes[2], InstanceId: instance.instanceId, Device: '/dev/sdz' }),
);

/** What has this tag goes to the recycle bin. */
const BINNED = { Key: 'recycle', Value: 'yes' };
const rule = JSON.stringify({
  ResourceType: 'EBS_SNAPSHOT',
  RetentionPeriod: { RetentionPeriodValue: 1, RetentionPeriodUnit: 'DAYS' },
  ResourceTags: [{ ResourceTagKey: BINNED.Key, ResourceTagValue: BINNED.Value }],
});
const signing = { service: 'rbin', credentials: readCredentials(dataDir) };
const ruled = await send(server.apiUrl, await sign(server.apiUrl, rest('POST', '/rules', {}, rule), signing));
assert.equal(ruled.status, 201, ruled.body);

const slots = new NumberedSlots(volumes);
const connect = (name: string): Promise<NbdClient> => server.connect(name);
type Cut = { snapshots: Map<string, number>; least: Numbers; most: Numbers; checked: boolean };
const cuts: Cut[] = [];
const figures = {
  cuts: 0,
  cutsRefused: 0,
  completed: 0,
  serverKills: 0,
  workerKills: 0,
  stops: 0,
  restores: 0,
  deletes: 0,
  collections: 0,
  archived: 0,
  fromArchive: 0,
  fromBin: 0,
};

/** A snapshot that is complete, and has been read. */
function someChecked(): string | undefined {
  const ids = cuts.filter((each) => each.checked).flatMap((each) => [...each.snapshots.keys()]);
  return ids[Math.floor(random() * ids.length)];
}

/** Deletes a snapshot, and takes it back. */
async function recycle(SnapshotId: string): Promise<void> {
  await server.ec2.send(new CreateTagsCommand({ Resources: [SnapshotId], Tags: [BINNED] }));
  await server.ec2.send(new DeleteSnapshotCommand({ SnapshotId }));
  await server.ec2.send(new RestoreSnapshotFromRecycleBinCommand({ SnapshotId }));
  figures.fromBin += 1;
}

const inArchive = new Set<string>();

/** Brings a snapshot back from the archive, for good or for a while; one that is not there is moved there. */
async function changeTier(checked: string): Promise<void> {
  const [first = checked] = inArchive;
  const SnapshotId = random() < 0.5 ? first : checked;
  inArchive.delete(SnapshotId);
  const { Snapshots = [] } = await server.ec2.send(new DescribeSnapshotsCommand({ SnapshotIds: [SnapshotId] }));
  if (Snapshots[0]?.StorageTier === 'archive') {
    const how = random() < 0.5 ? { PermanentRestore: true } : { TemporaryRestoreDays: 1 };
    await server.ec2.send(new RestoreSnapshotTierCommand({ SnapshotId, ...how }));
    figures.fromArchive += 1;
  } else {
    await server.ec2.send(new ModifySnapshotTierCommand({ SnapshotId, StorageTier: 'archive' }));
    inArchive.add(SnapshotId);
    figures.archived += 1;
  }
}

/** Until each snapshot that is kept can be read, wherever a kill has left it. */
async function bringAllBack(): Promise<void> {
  const { Snapshots: binned = [] } = await server.ec2.send(new ListSnapshotsInRecycleBinCommand({}));
  const kept = new Set(cuts.flatMap((each) => [...each.snapshots.keys()]));
  for (const { SnapshotId = '' } of binned) {
    if (kept.has(SnapshotId)) await server.ec2.send(new RestoreSnapshotFromRecycleBinCommand({ SnapshotId }));
  }
  const latest = performance.now() + ENDED_MILLISECONDS;
  for (const id of kept) {
    const Filters = [{ Name: 'snapshot-id', Values: [id] }];
    for (;;) {
      const { SnapshotTierStatuses = [] } = await server.ec2.send(new DescribeSnapshotTierStatusCommand({ Filters }));
      const [status] = SnapshotTierStatuses;
      assert.ok(status !== undefined, `${id} is gone`);
      const { LastTieringOperationStatus: last = '', LastTieringOperationStatusDetail: detail } = status;
      assert.ok(!last.endsWith('failed'), `${id}: ${last}: ${detail}`);
      if (!last.endsWith('in-progress')) {
        if (status.StorageTier !== 'archive') break;
        await server.ec2.send(new RestoreSnapshotTierCommand({ SnapshotId: id, PermanentRestore: true }));
      }
      assert.ok(performance.now() < latest, `${id} stays ${last}`);
      await sleep(20);
    }
  }
}

async function cut(): Promise<void> {
  const least = slots.acknowledged();
  try {
    const made = await createSnapshots(server.ec2, instance.instanceId, {
      InstanceSpecification: { InstanceId: instance.instanceId, ExcludeBootVolume: true },
    });
    const snapshots = new Map(
      made.map(({ SnapshotId = '', VolumeId = '' }) => [SnapshotId, volumes.indexOf(VolumeId)]),
    );
    cuts.push({ snapshots, least, most: slots.issued(), checked: false });
    figures.cuts += 1;
  } catch {
    // The server died under the call, or there are five pending already: no set was promised.
    figures.cutsRefused += 1;
  }
}

/** One thing that an operator does meanwhile; a server that dies under it is no one's fault. */
async function operate(): Promise<void> {
  const chance = random();
  try {
    const checked = random() < 0.3 ? someChecked() : undefined;
    if (checked !== undefined) await (random() < 0.3 ? recycle(checked) : changeTier(checked));
    else if (cuts.length <= KEPT_SETS && chance < 0.6) await cut();
    else if (chance < 0.7) await server.admin.ask('collect', { remove: true }).then(() => (figures.collections += 1));
    else if (cuts.length > KEPT_SETS || chance < 0.8) {
      const [first] = cuts.filter((each) => each.checked);
      if (first === undefined) return;
      cuts.splice(cuts.indexOf(first), 1);
      for (const SnapshotId of first.snapshots.keys()) await server.ec2.send(new DeleteSnapshotCommand({ SnapshotId }));
      figures.deletes += 1;
    } else if (chance < 0.9) {
      const done = cuts.findLast((each) => each.checked && ![...each.snapshots.keys()].some((id) => inArchive.has(id)));
      if (done === undefined) return;
      const { sets } = await server.admin.ask<{ sets: SetReport[] }>('sets');
      const set = sets.find((each) => each.snapshots.some(({ snapshotId }) => done.snapshots.has(snapshotId)));
      if (set === undefined) return;
      const restored = await server.admin.ask<RestoredSet>('restore-set', { setId: set.setId });
      for (const { volumeId, snapshotId } of restored.volumes) {
        const volume = done.snapshots.get(snapshotId ?? '');
        if (volume === undefined) continue;
        checkWithin(
          await numbersOf(connect, volumeId, slots.unanswered(volume)),
          done.least[volume],
          done.most[volume],
          `restored ${volumeId}`,
        );
      }
      await server.ec2.send(new TerminateInstancesCommand({ InstanceIds: [restored.instanceId] }));
      for (const { volumeId: VolumeId } of restored.volumes)
        await server.ec2.send(new DeleteVolumeCommand({ VolumeId }));
      figures.restores += 1;
    }
  } catch (error) {
    if (error instanceof assert.AssertionError) throw error;
  }
}

async function checkEnded(): Promise<void> {
  for (const each of cuts) {
    if (each.checked) continue;
    const SnapshotIds = [...each.snapshots.keys()];
    const until = performance.now() + ENDED_MILLISECONDS;
    for (;;) {
      const { Snapshots = [] } = await server.ec2.send(new DescribeSnapshotsCommand({ SnapshotIds }));
      const pending = Snapshots.filter((snapshot) => snapshot.State === 'pending');
      for (const { State, StateMessage } of Snapshots) assert.notEqual(State, 'error', StateMessage ?? '');
      if (pending.length === 0) break;
      assert.ok(performance.now() < until, `${pending.map((snapshot) => snapshot.SnapshotId)} stay pending`);
      await sleep(50);
    }
    for (const [snapshotId, volume] of each.snapshots) {
      checkWithin(
        await numbersOf(connect, snapshotId, slots.unanswered(volume)),
        each.least[volume],
        each.most[volume],
        snapshotId,
      );
    }
    each.checked = true;
    figures.completed += 1;
  }
}

/** A stop loses nothing, whatever is under way: it has nothing to complain of. */
async function stop(): Promise<void> {
  const before = server.log().length;
  assert.equal(await server.stop(), 0);
  const errors = server
    .log()
    .slice(before)
    .split('\n')
    .filter((line) => line.includes('"level":50'));
  assert.deepEqual(errors, [], 'errors while the server stopped');
  figures.stops += 1;
}

async function kill(): Promise<void> {
  const chance = random();
  if (chance < 0.6) {
    if (chance < 0.3) await stop();
    else {
      await server.kill();
      figures.serverKills += 1;
    }
    server = await startTestServer(file, options);
    return;
  }
  const workers = childrenOf(server.process.pid ?? 0);
  process.kill(workers[Math.floor(random() * workers.length)], 'SIGKILL');
  figures.workerKills += 1;
}

/** The server's own, then its workers'. */
const memory = (of: TestServer): number[] =>
  [of.process.pid ?? 0, ...childrenOf(of.process.pid ?? 0)].map((pid) => Math.round(residentMiB(pid)));
const total = (each: readonly number[]): number => each.reduce((sum, mebibytes) => sum + mebibytes, 0);

function residentMiB(pid: number): number {
  try {
    return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0) / 1024;
  } catch {
    return 0;
  }
}

const begun = performance.now();
let most = 0;
for (let round = 1; round <= rounds && performance.now() < until; round += 1) {
  const stopWriting = slots.start(connect, random);
  const operating = (async () => {
    for (let action = 0; action < 2; action += 1) {
      await sleep(random() * 150);
      await operate();
    }
  })();
  await sleep(random() * 500);
  if (random() < killChance) await kill();
  await operating;
  await stopWriting();
  await slots.check(connect, `round ${round}`);
  if (round % 5 === 0) await checkEnded();
  most = Math.max(most, total(memory(server)));
  if (round % 25 === 0)
    process.stdout.write(
      `round ${round}: ${JSON.stringify({ writes: slots.writes, ...figures })}, ${memory(server).join(' + ')} MiB\n`,
    );
}
await checkEnded();
for (;;) {
  const { busy } = await server.admin.ask<{ busy?: string }>('collect', { remove: true });
  if (busy === undefined) break;
  await sleep(100);
}
await bringAllBack();
for (const each of cuts)
  for (const [id, volume] of each.snapshots)
    checkWithin(await numbersOf(connect, id, slots.unanswered(volume)), each.least[volume], each.most[volume], id);
assert.equal(await server.stop(), 0);
const seconds = Math.round((performance.now() - begun) / 1000);
process.stdout.write(
  `done in ${seconds} s: ${JSON.stringify({ writes: slots.writes, ...figures })}; 0 lost, 0 wrong, 0 stuck; most memory ${most} MiB in all processes\n`,
);
file.run();
rmSync(dataDir, { recursive: true, force: true });
process.exit(0);
