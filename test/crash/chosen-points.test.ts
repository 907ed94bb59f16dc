import assert from 'node:assert/strict';
import { existsSync, readdirSync } from 'node:fs';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  DeleteSnapshotCommand,
  DeleteVolumeCommand,
  DescribeInstancesCommand,
  DescribeSnapshotsCommand,
  DescribeVolumesCommand,
  TerminateInstancesCommand,
} from '@aws-sdk/client-ec2';
import type { RestoredSet } from '../../src/admin/restore-set.ts';
import type { SetReport } from '../../src/admin/sets.ts';
import { openCatalog } from '../../src/catalog/catalog.ts';
import type { CollectReport } from '../../src/lifecycle/repacker.ts';
import type { NbdClient } from '../../src/nbd/client.ts';
import { createSnapshots, ended, launchInstance } from '../support/instances.ts';
import { KILL_POINTS, type KillPoint } from '../support/kill-point.ts';
import { checkWithin, NumberedSlots, type Numbers, numbersOf } from '../support/numbered-slots.ts';
import { chooseSeed, seededRandom } from '../support/random.ts';
import { startTestServer, type TestServer } from '../support/server.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';

const PRELOAD = new URL('../support/kill-point.ts', import.meta.url).href;

/** At which time of coming there the process dies; the first times are still set-up. */
const COUNTS: Partial<Record<KillPoint, number>> = {
  'after a dirty bit, before its data': 60,
  'after old pages are kept, before the new data': 3,
  'before a pack is stored': 4,
  'after a pack is stored, before the journal says so': 4,
  'after the packs, before a manifest node': 5,
  'between two records of a set': 1,
  'before a manifest node is collected': 2,
};

type Cut = { snapshots: Map<string, number>; least: Numbers; most: Numbers };

/** Sets that are cut, deleted, restored and collected under load, again and again, until a process has died of it. */
async function operateUntil(
  server: TestServer,
  instanceId: string,
  slots: NumberedSlots,
  cuts: Cut[],
  died: () => boolean,
): Promise<void> {
  for (let turn = 0; !died(); turn += 1) {
    assert.ok(turn < 40, 'the point was never reached');
    try {
      const least = slots.acknowledged();
      const made = await createSnapshots(server.ec2, instanceId, {
        InstanceSpecification: { InstanceId: instanceId, ExcludeBootVolume: true },
      });
      const snapshots = new Map(
        made.map(({ SnapshotId = '', VolumeId = '' }) => [SnapshotId, slots.volumes.indexOf(VolumeId)]),
      );
      cuts.push({ snapshots, least, most: slots.issued() });
      await ended(server.ec2, made);
      const { sets } = await server.admin.ask<{ sets: SetReport[] }>('sets');
      const set = sets.find((each) => each.snapshots.some(({ snapshotId }) => snapshots.has(snapshotId)));
      const restored = await server.admin.ask<RestoredSet>('restore-set', { setId: set?.setId });
      for (const { volumeId, snapshotId } of restored.volumes) {
        const volume = snapshots.get(snapshotId ?? '');
        await numbersOf(server.connect, volumeId, volume === undefined ? undefined : slots.unanswered(volume));
      }
      await server.ec2.send(new TerminateInstancesCommand({ InstanceIds: [restored.instanceId] }));
      for (const { volumeId: VolumeId } of restored.volumes)
        await server.ec2.send(new DeleteVolumeCommand({ VolumeId }));
      if (cuts.length > 2) {
        const [oldest] = cuts.splice(0, 1);
        for (const SnapshotId of oldest.snapshots.keys())
          await server.ec2.send(new DeleteSnapshotCommand({ SnapshotId }));
        await server.admin.ask('collect', { remove: true });
      }
    } catch (error) {
      if (error instanceof assert.AssertionError) throw error;
      // Something died under it, or is about to come back.
      await sleep(20);
    }
  }
}

/** Waits for an answer that a server which is just picking itself up may not give at once. */
async function eventually<Answer>(ask: () => Promise<Answer>, wanted: (answer: Answer) => boolean): Promise<Answer> {
  for (const until = performance.now() + 30_000; ; ) {
    const answer = await ask().catch((error: unknown) => {
      if (performance.now() > until) throw error;
      return undefined;
    });
    if (answer !== undefined && wanted(answer)) return answer;
    assert.ok(performance.now() < until, `it stays ${JSON.stringify(answer)}`);
    await sleep(50);
  }
}

for (const point of KILL_POINTS) {
  test(`kill -9 ${point}`, async (t) => {
    const seed = chooseSeed();
    t.diagnostic(`seed ${seed}`);
    const random = seededRandom(seed);
    const dataDir = temporaryDirectory(t);
    const mark = `${temporaryDirectory(t)}/killed`;
    const environment = {
      NODE_OPTIONS: `--import=${PRELOAD}`,
      CLEANCUT_TEST_KILL: `${point} ${COUNTS[point] ?? 1} ${mark}`,
    };
    let server = await startTestServer(t, { dataDir, environment });
    const connect = (name: string): Promise<NbdClient> => server.connect(name);
    const instance = await launchInstance(server.ec2, [1, 1]);
    const slots = new NumberedSlots(instance.volumes);
    const cuts: Cut[] = [];
    const stopWriting = slots.start(connect, random);
    t.after(stopWriting);
    await operateUntil(server, instance.instanceId, slots, cuts, () => existsSync(mark));
    await sleep(100);
    if (server.process.signalCode !== null) server = await startTestServer(t, { dataDir });
    else
      await eventually(
        async () => server.log(),
        (log) => log.includes('starting it again'),
      );
    const before = slots.writes;
    await eventually(
      async () => slots.writes,
      (writes) => writes > before + 20,
    );
    await stopWriting();
    await slots.check(connect, point);

    const all = (): Promise<{ SnapshotId?: string; State?: string; StateMessage?: string }[]> =>
      server.ec2
        .send(new DescribeSnapshotsCommand({ OwnerIds: ['self'] }))
        .then(({ Snapshots = [] }) => Snapshots as { SnapshotId?: string; State?: string; StateMessage?: string }[]);
    const snapshots = await eventually(all, (found) => found.every(({ State }) => State !== 'pending'));
    for (const { SnapshotId = '', State, StateMessage } of snapshots) {
      // A process that dies takes no snapshot with it: its cuts go on from the journals.
      assert.equal(State, 'completed', StateMessage ?? '');
      const cut = cuts.find((each) => each.snapshots.has(SnapshotId));
      const volume = cut?.snapshots.get(SnapshotId);
      // The answer of a call that the server died under never came: such a set is complete or not there.
      if (cut === undefined || volume === undefined) continue;
      checkWithin(
        await numbersOf(connect, SnapshotId, slots.unanswered(volume)),
        cut.least[volume],
        cut.most[volume],
        SnapshotId,
      );
    }
    for (const { snapshots: promised } of cuts) {
      const there = [...promised.keys()].filter((id) => snapshots.some(({ SnapshotId }) => SnapshotId === id));
      assert.ok(there.length === promised.size || point.includes('delete'), 'a promised set is not whole');
    }

    // Nothing is left of anything, once all of it is deleted: no orphan, here or in the store.
    for (const { SnapshotId = '' } of snapshots) await server.ec2.send(new DeleteSnapshotCommand({ SnapshotId }));
    const { Reservations = [] } = await server.ec2.send(new DescribeInstancesCommand({}));
    const InstanceIds = Reservations.flatMap(({ Instances = [] }) => Instances.map((each) => each.InstanceId ?? ''));
    await server.ec2.send(new TerminateInstancesCommand({ InstanceIds }));
    const { Volumes = [] } = await server.ec2.send(new DescribeVolumesCommand({}));
    for (const { VolumeId } of Volumes) await server.ec2.send(new DeleteVolumeCommand({ VolumeId }));
    const collected = await eventually(
      () => server.admin.ask<CollectReport>('collect', { remove: true }),
      ({ busy }) => busy === undefined,
    );
    assert.ok(collected.removed);
    assert.deepEqual(readdirSync(`${dataDir}/volumes`), []);
    let { liveBytes } = await server.admin.ask<CollectReport>('collect', { remove: false });
    if (liveBytes > 0) {
      // Packs were emptied meanwhile, and the manifests of before are kept for a day: here the day is over.
      assert.equal(await server.stop(), 0);
      const catalog = await openCatalog(`${dataDir}/catalog.sqlite`);
      await catalog.deleteFrom('retired_roots').execute();
      await catalog.destroy();
      server = await startTestServer(t, { dataDir });
      await server.admin.ask('collect', { remove: true });
      ({ liveBytes } = await server.admin.ask<CollectReport>('collect', { remove: false }));
    }
    assert.equal(liveBytes, 0);
    assert.equal(await server.stop(), 0);
  });
}
