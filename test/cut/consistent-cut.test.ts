import assert from 'node:assert/strict';
import { test } from 'node:test';
import { TerminateInstancesCommand } from '@aws-sdk/client-ec2';
import type { RestoredSet } from '../../src/admin/restore-set.ts';
import type { SetReport } from '../../src/admin/sets.ts';
import { CausalWriters, type Clock, type SetReader } from '../../src/demo/causal-writers.ts';
import { createSnapshots, ended, launchInstance, type TestInstance } from '../support/instances.ts';
import { chooseSeed, seededRandom } from '../support/random.ts';
import { startTestServer, type TestServer } from '../support/server.ts';

const CHAINS = 6;
const VOLUMES = 4;
const CONNECTIONS = 2;

async function startWriters(server: TestServer, instance: TestInstance, seed: number): Promise<CausalWriters> {
  const connections = [];
  for (const volume of instance.volumes) {
    connections.push(await Promise.all(Array.from({ length: CONNECTIONS }, () => server.connect(volume))));
  }
  const writers = new CausalWriters(connections, CHAINS, seededRandom(seed));
  writers.start();
  return writers;
}

test('a set that holds a write holds every write acknowledged before it was issued', async (t) => {
  const CUTS = 50;
  const seed = chooseSeed();
  t.diagnostic(`seed ${seed}`);
  const server = await startTestServer(t, { flags: ['--pending-snapshots-per-volume', '0'] });
  const instance = await launchInstance(server.ec2, new Array(VOLUMES).fill(1));
  const writers = await startWriters(server, instance, seed);
  const sets: { before: Clock; after: Clock; snapshots: { SnapshotId?: string | undefined }[] }[] = [];
  const random = seededRandom(seed + 1);
  let restored = 0;
  for (let cut = 0; cut < CUTS; cut += 1) {
    await new Promise((resolve) => setTimeout(resolve, random() * 60));
    const before = writers.clock();
    const snapshots = await createSnapshots(server.ec2, instance.instanceId, {
      InstanceSpecification: { InstanceId: instance.instanceId, ExcludeBootVolume: true },
    });
    sets.push({ before, after: writers.clock(), snapshots });
  }
  await writers.stop();
  t.diagnostic(`${writers.writes} writes acknowledged around ${CUTS} cuts`);
  assert.ok(writers.writes > CUTS * 10, 'the cuts were made in mid-write');

  const violations: string[] = [];
  const reports = (await server.admin.ask<{ sets: SetReport[] }>('sets')).sets;
  for (const { before, after, snapshots } of sets) {
    for (const snapshot of await ended(server.ec2, snapshots))
      assert.equal(snapshot.State, 'completed', snapshot.StateMessage ?? '');
    const report = reports.find((set) => set.snapshots.some((each) => each.snapshotId === snapshots[0].SnapshotId));
    const copy = await server.admin.ask<RestoredSet>('restore-set', { setId: report?.setId });
    restored += copy.volumes.length;
    const clients = await Promise.all(
      instance.volumes.map((original) => {
        const snapshotId = report?.snapshots.find((each) => each.volumeId === original)?.snapshotId;
        return server.connect(copy.volumes.find((each) => each.snapshotId === snapshotId)?.volumeId ?? '');
      }),
    );
    const read: SetReader = (volume, offset, length) => clients[volume].read(offset, length);
    violations.push(...(await writers.check(read, before, after)));
    for (const client of clients) await client.close();
    await server.ec2.send(new TerminateInstancesCommand({ InstanceIds: [copy.instanceId] }));
  }
  assert.deepEqual(violations.slice(0, 5), [], `seed ${seed}`);
  assert.equal(restored, CUTS * VOLUMES);
  const holds = reports.map((set) => set.holdMilliseconds).sort((a, b) => a - b);
  t.diagnostic(`hold: median ${holds[holds.length >> 1].toFixed(2)} ms, longest ${holds.at(-1)?.toFixed(2)} ms`);
});

test('the checker reports volumes that were cut one after another, without the hold', async (t) => {
  const seed = chooseSeed();
  t.diagnostic(`seed ${seed}`);
  const server = await startTestServer(t, { flags: ['--pending-snapshots-per-volume', '0'] });
  const instance = await launchInstance(server.ec2, new Array(VOLUMES).fill(1));
  const writers = await startWriters(server, instance, seed);
  const sets: { before: Clock; after: Clock; snapshotIds: string[] }[] = [];
  for (let cut = 0; cut < 10; cut += 1) {
    const before = writers.clock();
    const snapshotIds: string[] = [];
    for (const volume of instance.volumes) {
      const ExcludeDataVolumeIds = instance.volumes.filter((other) => other !== volume);
      const [alone] = await createSnapshots(server.ec2, instance.instanceId, {
        InstanceSpecification: { InstanceId: instance.instanceId, ExcludeBootVolume: true, ExcludeDataVolumeIds },
      });
      snapshotIds.push(alone.SnapshotId ?? '');
    }
    sets.push({ before, after: writers.clock(), snapshotIds });
  }
  await writers.stop();
  let violations = 0;
  for (const { before, after, snapshotIds } of sets) {
    await ended(
      server.ec2,
      snapshotIds.map((SnapshotId) => ({ SnapshotId })),
    );
    const clients = await Promise.all(snapshotIds.map((id) => server.connect(id)));
    const read: SetReader = (volume, offset, length) => clients[volume].read(offset, length);
    violations += (await writers.check(read, before, after)).length;
    for (const client of clients) await client.close();
  }
  t.diagnostic(`${violations} violations reported`);
  assert.ok(violations > 0, `seed ${seed}: the checker saw nothing wrong with broken cuts`);
});
