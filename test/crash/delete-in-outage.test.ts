import assert from 'node:assert/strict';
import { rmSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { CreateSnapshotCommand, DeleteSnapshotCommand, DescribeSnapshotsCommand } from '@aws-sdk/client-ec2';
import { createSnapshots, ended, launchInstance } from '../support/instances.ts';
import { startTestServer } from '../support/server.ts';

/** As many uploads as one worker makes at once. */
const UPLOADS_AT_ONCE = 2;

test('snapshots that are deleted while their uploads wait for the store leave room for others at once', async (t) => {
  const server = await startTestServer(t, { flags: ['--workers', '1'] });
  const { instanceId, volumes } = await launchInstance(server.ec2, [1, 1, 1]);
  await ended(server.ec2, await createSnapshots(server.ec2, instanceId));
  const packs = `${server.dataDir}/objects/packs`;
  rmSync(packs, { recursive: true, force: true });
  writeFileSync(packs, 'not a directory');
  const waiting: string[] = [];
  for (const VolumeId of volumes.slice(0, UPLOADS_AT_ONCE)) {
    const client = await server.connect(VolumeId);
    await client.write(0, Buffer.alloc(4096, 7));
    await client.close();
    const { SnapshotId = '' } = await server.ec2.send(new CreateSnapshotCommand({ VolumeId }));
    waiting.push(SnapshotId);
  }
  const isTrying = (id: string): boolean => server.log().includes(`${id}: attempt`);
  for (let look = 0; look < 200 && !waiting.every(isTrying); look += 1) {
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  assert.ok(waiting.every(isTrying), 'both uploads are under way');
  for (const SnapshotId of waiting) await server.ec2.send(new DeleteSnapshotCommand({ SnapshotId }));

  // Nothing has changed: it needs no pack, only its turn.
  const next = await server.ec2.send(new CreateSnapshotCommand({ VolumeId: volumes[UPLOADS_AT_ONCE] }));
  const SnapshotIds = [next.SnapshotId ?? ''];
  let state: string | undefined = 'pending';
  for (let look = 0; look < 200 && state === 'pending'; look += 1) {
    await new Promise((resolve) => setTimeout(resolve, 50));
    state = (await server.ec2.send(new DescribeSnapshotsCommand({ SnapshotIds }))).Snapshots?.[0]?.State;
  }
  assert.equal(state, 'completed');
});
