import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DescribeSnapshotsCommand } from '@aws-sdk/client-ec2';
import { newId } from '../../src/types/ids.ts';
import { asEpoch, PAGE_BYTES } from '../../src/types/units.ts';
import { LocalEngine } from '../../src/volumes/local-engine.ts';
import { NodeDisk } from '../../src/volumes/node-disk.ts';
import { createSnapshots, ended, launchInstance } from '../support/instances.ts';
import { childrenOf } from '../support/processes.ts';
import { startTestServer } from '../support/server.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';

test('past the deadline of a hold everything goes on, and the cut can no longer be made', async (t) => {
  let expire = (): void => undefined;
  const engine = new LocalEngine({
    disk: new NodeDisk(),
    directory: temporaryDirectory(t),
    bootId: 'boot',
    stagingLimitBytes: 1 << 30,
    onCutLost: () => undefined,
    onFault: () => undefined,
    startTimer: (_, run) => {
      expire = run;
      return () => undefined;
    },
  });
  const ids = [newId('vol'), newId('vol')];
  const making = ids.map(async (volumeId) => {
    await engine.create({ volumeId, sizeBytes: 1024 ** 3, restored: false, baseless: false, key: undefined });
    return engine.open(volumeId, undefined, undefined, { base: asEpoch(1), newest: asEpoch(1) });
  });
  const volumes = await Promise.all(making);
  await engine.prepareCut(ids);
  await engine.hold('token', ids, 100);
  let written = 0;
  const writes = volumes.map((volume) =>
    Promise.resolve(volume.write([Buffer.alloc(PAGE_BYTES, 1)], PAGE_BYTES, 0)).then(() => {
      written += 1;
    }),
  );
  await new Promise(setImmediate);
  assert.equal(written, 0);
  expire();
  await Promise.all(writes);
  assert.throws(() => engine.cut('token'), /deadline/);
  await engine.closeAll();
});

test('a worker that does not answer in time: no snapshot comes to be, the other volumes go on, and the next call works', async (t) => {
  const server = await startTestServer(t, { flags: ['--hold-deadline-ms', '500'] });
  const instance = await launchInstance(server.ec2, [1, 1, 1, 1]);
  const clients = await Promise.all(instance.volumes.map((volume) => server.connect(volume)));
  for (const client of clients) await client.write(0, Buffer.alloc(4096, 1));
  const [stuck] = childrenOf(server.process.pid ?? 0);
  process.kill(stuck, 'SIGSTOP');
  const failure = await createSnapshots(server.ec2, instance.instanceId).catch((error: Error) => error);
  assert.ok(failure instanceof Error);
  assert.match(
    failure.message,
    /No snapshot was created: the volumes could not be cut at one instant: .* took longer than/,
  );
  // Two of the four volumes belong to the worker that is well: they take writes.
  let done = 0;
  const writes = clients.map(async (client) => {
    await client.write(8192, Buffer.alloc(4096, 2));
    done += 1;
  });
  for (let looks = 0; looks < 2000 && done < 2; looks += 1) await pause(5);
  await pause(50);
  assert.equal(done, 2);
  assert.deepEqual((await server.ec2.send(new DescribeSnapshotsCommand({ OwnerIds: ['self'] }))).Snapshots, []);
  process.kill(stuck, 'SIGCONT');
  await Promise.all(writes);
  const snapshots = await ended(server.ec2, await createSnapshots(server.ec2, instance.instanceId));
  assert.ok(snapshots.every((snapshot) => snapshot.State === 'completed'));
  for (const client of clients) await client.close();
});

function pause(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}
