import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { DeleteSnapshotCommand } from '@aws-sdk/client-ec2';
import { createSnapshots, ended, launchInstance } from '../support/instances.ts';
import { startProxiedServer } from '../support/proxied-server.ts';
import { startTestServer } from '../support/server.ts';

const MIB = 1024 * 1024;

// A request that gets no answer is given up after 150 s (five attempts of 30 s).
test('a store that does not answer: a pending snapshot can be deleted, the server stops, and the next one goes on', {
  timeout: 100_000,
}, async (t) => {
  const { proxy, options, server } = await startProxiedServer(t);
  const instance = await launchInstance(server.ec2, [1, 1]);
  const contents = instance.volumes.map(() => randomBytes(MIB));
  for (const [index, volume] of instance.volumes.entries()) {
    const client = await server.connect(volume);
    await client.write(0, contents[index]);
    await client.close();
  }
  let asked = 0;
  proxy.chooseFault = (method, path) => {
    if (method === 'PUT' && path.includes('/packs/')) asked += 1;
    return 'no answer';
  };
  const made = await createSnapshots(server.ec2, instance.instanceId, {
    InstanceSpecification: { InstanceId: instance.instanceId, ExcludeBootVolume: true },
  });
  while (asked < 2) await sleep(20);
  const [unwanted, wanted] = made;
  await server.ec2.send(new DeleteSnapshotCommand({ SnapshotId: unwanted.SnapshotId }));
  assert.equal(await server.stop(), 0);

  proxy.chooseFault = () => undefined;
  const next = await startTestServer(t, { ...options, dataDir: server.dataDir });
  const [snapshot] = await ended(next.ec2, [wanted]);
  assert.equal(snapshot.State, 'completed');
  const client = await next.connect(wanted.SnapshotId ?? '');
  assert.ok((await client.read(0, MIB)).equals(contents[instance.volumes.indexOf(wanted.VolumeId ?? '')]));
  await client.close();
  assert.equal(await next.stop(), 0);
});
