import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { DescribeSnapshotsCommand } from '@aws-sdk/client-ec2';
import { BLOCK_BYTES, PAGE_BYTES } from '../../src/types/units.ts';
import { createSnapshots, ended, launchInstance } from '../support/instances.ts';
import { startProxiedServer } from '../support/proxied-server.ts';

/** Each a block of its own: more than what counts as a small snapshot. */
const PAGES = 4200;

test('snapshots that take long keep a small one of the same worker from nothing', { timeout: 150_000 }, async (t) => {
  const { proxy, server } = await startProxiedServer(t, '&timeout=20', ['--workers', '1']);
  const dataOnly = (InstanceId: string) => ({ InstanceSpecification: { InstanceId, ExcludeBootVolume: true } });
  const large = await launchInstance(server.ec2, [3, 3]);
  const small = await launchInstance(server.ec2, [1]);
  for (const volume of large.volumes) {
    const client = await server.connect(volume);
    for (let page = 0; page < PAGES; page += 1) await client.write(page * BLOCK_BYTES, randomBytes(PAGE_BYTES));
    await client.close();
  }
  const bytes = randomBytes(PAGE_BYTES);
  const client = await server.connect(small.volumes[0]);
  await client.write(0, bytes);
  await client.close();

  let asked = 0;
  proxy.chooseFault = (method, path) => {
    if (method !== 'PUT' || !path.includes('/packs/')) return undefined;
    asked += 1;
    return 'no answer';
  };
  const largeOnes = await createSnapshots(server.ec2, large.instanceId, dataOnly(large.instanceId));
  while (asked === 0) await sleep(20);
  // Were both under way at once, the second would be as far by now.
  await sleep(3000);
  proxy.chooseFault = () => undefined;
  const smallOnes = await createSnapshots(server.ec2, small.instanceId, dataOnly(small.instanceId));
  for (const { State } of await ended(server.ec2, smallOnes)) assert.equal(State, 'completed');
  const SnapshotIds = largeOnes.map(({ SnapshotId = '' }) => SnapshotId);
  const { Snapshots = [] } = await server.ec2.send(new DescribeSnapshotsCommand({ SnapshotIds }));
  assert.deepEqual(
    Snapshots.map(({ State }) => State),
    ['pending', 'pending'],
    'the large ones did not take long',
  );
  const reader = await server.connect(smallOnes[0].SnapshotId ?? '');
  assert.ok((await reader.read(0, PAGE_BYTES)).equals(bytes));
  await reader.close();
  for (const { State } of await ended(server.ec2, largeOnes)) assert.equal(State, 'completed');
});
