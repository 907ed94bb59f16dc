import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { CopySnapshotCommand, DeleteSnapshotCommand, DescribeSnapshotsCommand } from '@aws-sdk/client-ec2';
import type { Collected } from '../../src/lifecycle/collector.ts';
import { createSnapshots, ended, launchInstance } from '../support/instances.ts';
import { startProxiedServer } from '../support/proxied-server.ts';

const MIB = 1024 * 1024;

/** A server, its store that can fall silent, and a plain snapshot whose bytes take more than one pack. */
async function withSnapshot(t: TestContext) {
  const { proxy, server } = await startProxiedServer(t);
  const instance = await launchInstance(server.ec2, [1]);
  const bytes = randomBytes(20 * MIB);
  const client = await server.connect(instance.volumes[0]);
  for (let at = 0; at < bytes.length; at += 4 * MIB) await client.write(at, bytes.subarray(at, at + 4 * MIB));
  await client.close();
  const snapshots = await ended(server.ec2, await createSnapshots(server.ec2, instance.instanceId));
  const snapshotId = snapshots.find((each) => each.VolumeId === instance.volumes[0])?.SnapshotId ?? '';
  const copy = async (): Promise<string> => {
    const wish = { SourceRegion: 'us-east-1', SourceSnapshotId: snapshotId, Encrypted: true };
    return (await server.ec2.send(new CopySnapshotCommand(wish))).SnapshotId ?? '';
  };
  return { proxy, server, bytes, copy };
}

// A request that gets no answer is given up after 150 s (five attempts of 30 s).
test('copies that are deleted while they are being made, or wait for their turn, end, though the store does not answer', async (t) => {
  const { proxy, server, copy } = await withSnapshot(t);
  let asked = 0;
  proxy.chooseFault = (method, path) => {
    if (method !== 'GET' || !path.includes('/packs/')) return undefined;
    asked += 1;
    return 'no answer';
  };
  // More than there are workers.
  const copies = [await copy(), await copy(), await copy(), await copy()];
  while (asked < 2) await sleep(20);
  for (const SnapshotId of copies) await server.ec2.send(new DeleteSnapshotCommand({ SnapshotId }));
  // As long as one is under way, nothing is collected.
  const isBusy = async (): Promise<boolean> =>
    (await server.admin.ask<Collected>('collect', { remove: true })).busy !== undefined;
  const begun = performance.now();
  while (await isBusy()) {
    assert.ok(performance.now() - begun < 20_000, 'a copy that nobody wants is still under way');
    await sleep(100);
  }
  const { Snapshots = [] } = await server.ec2.send(new DescribeSnapshotsCommand({ OwnerIds: ['self'] }));
  assert.equal(Snapshots.filter(({ SnapshotId = '' }) => copies.includes(SnapshotId)).length, 0);
});

test('many copies at once are made in turn, and each is whole', async (t) => {
  const { server, bytes, copy } = await withSnapshot(t);
  const copies = await Promise.all(Array.from({ length: 6 }, copy));
  const done = await ended(
    server.ec2,
    copies.map((SnapshotId) => ({ SnapshotId })),
  );
  for (const { SnapshotId = '', State } of done) {
    assert.equal(State, 'completed');
    const client = await server.connect(SnapshotId);
    for (let at = 0; at < bytes.length; at += 4 * MIB) {
      assert.ok((await client.read(at, 4 * MIB)).equals(bytes.subarray(at, at + 4 * MIB)));
    }
    await client.close();
  }
});
