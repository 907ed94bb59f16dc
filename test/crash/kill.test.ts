import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { DescribeInstancesCommand } from '@aws-sdk/client-ec2';
import type { RestoredSet } from '../../src/admin/restore-set.ts';
import type { SetReport } from '../../src/admin/sets.ts';
import { createSnapshots, ended, launchInstance } from '../support/instances.ts';
import { childrenOf } from '../support/processes.ts';
import { chooseSeed, seededRandom } from '../support/random.ts';
import { startS3Server } from '../support/s3-server.ts';
import { startTestServer, type TestServer } from '../support/server.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';

const MIB = 1024 * 1024;

async function readAll(server: TestServer, name: string, bytes: number): Promise<Buffer> {
  const client = await server.connect(name);
  const image = Buffer.alloc(bytes);
  for (let at = 0; at < bytes; at += 4 * MIB) (await client.read(at, Math.min(4 * MIB, bytes - at))).copy(image, at);
  await client.close();
  return image;
}

test('kill -9 of the server in mid-upload: acknowledged writes are there, and pending snapshots end with the bytes of their cut', async (t) => {
  const seed = chooseSeed();
  t.diagnostic(`seed ${seed}`);
  const random = seededRandom(seed);
  const dataDir = temporaryDirectory(t);
  let server = await startTestServer(t, { dataDir });
  const instance = await launchInstance(server.ec2, [1, 1]);
  const size = 48 * MIB;
  const models = instance.volumes.map(() => Buffer.alloc(size));
  const sets: { snapshots: { SnapshotId?: string | undefined; VolumeId?: string | undefined }[]; images: Buffer[] }[] =
    [];

  for (let round = 0; round < 5; round += 1) {
    const clients = await Promise.all(instance.volumes.map((volume) => server.connect(volume)));
    for (const [index, client] of clients.entries()) {
      for (let write = 0; write < 12; write += 1) {
        const bytes = randomBytes(1 + Math.floor(random() * 3 * MIB));
        const offset = Math.floor(random() * (size - bytes.length));
        await client.write(offset, bytes);
        bytes.copy(models[index], offset);
      }
    }
    const snapshots = await createSnapshots(server.ec2, instance.instanceId, {
      InstanceSpecification: { InstanceId: instance.instanceId, ExcludeBootVolume: true },
    });
    sets.push({ snapshots, images: models.map((model) => Buffer.from(model)) });
    // Writes after the cut, so that old pages are kept; then the plug is pulled somewhere in the upload.
    for (const [index, client] of clients.entries()) {
      for (let write = 0; write < 20; write += 1) {
        const bytes = randomBytes(1 + Math.floor(random() * 100_000));
        const offset = Math.floor(random() * (size - bytes.length));
        await client.write(offset, bytes);
        bytes.copy(models[index], offset);
      }
    }
    await new Promise((resolve) => setTimeout(resolve, random() * 250));
    await server.kill();
    for (const client of clients) client.destroy();
    server = await startTestServer(t, { dataDir });
    for (const [index, volume] of instance.volumes.entries()) {
      assert.ok(
        (await readAll(server, volume, size)).equals(models[index]),
        `seed ${seed} round ${round}: a write is lost`,
      );
    }
  }
  for (const [round, { snapshots, images }] of sets.entries()) {
    for (const snapshot of await ended(server.ec2, snapshots)) {
      assert.equal(snapshot.State, 'completed', snapshot.StateMessage ?? '');
      const index = instance.volumes.indexOf(snapshot.VolumeId ?? '');
      const bytes = await readAll(server, snapshot.SnapshotId ?? '', size);
      assert.ok(
        bytes.equals(images[index]),
        `seed ${seed}: snapshot ${snapshot.SnapshotId} of round ${round} is not its cut`,
      );
    }
  }
  assert.equal(await server.stop(), 0);
});

test('a data-plane worker that dies comes back, with its volumes, its exports and its pending snapshots', async (t) => {
  const server = await startTestServer(t);
  const instance = await launchInstance(server.ec2, [1, 1]);
  const models = instance.volumes.map(() => randomBytes(64 * MIB));
  for (const [index, volume] of instance.volumes.entries()) {
    const client = await server.connect(volume);
    await client.write(0, models[index].subarray(0, 32 * MIB));
    await client.write(32 * MIB, models[index].subarray(32 * MIB));
    await client.close();
  }
  const snapshots = await createSnapshots(server.ec2, instance.instanceId);
  for (const worker of childrenOf(server.process.pid ?? 0)) process.kill(worker, 'SIGKILL');
  for (const [index, volume] of instance.volumes.entries()) {
    for (;;) {
      const bytes = await readAll(server, volume, 64 * MIB).catch(() => undefined);
      if (bytes === undefined) {
        await new Promise((resolve) => setTimeout(resolve, 50));
        continue;
      }
      assert.ok(bytes.equals(models[index]));
      break;
    }
  }
  for (const snapshot of await ended(server.ec2, snapshots)) {
    assert.equal(snapshot.State, 'completed', snapshot.StateMessage ?? '');
    const index = instance.volumes.indexOf(snapshot.VolumeId ?? '');
    if (index === -1) continue;
    assert.ok((await readAll(server, snapshot.SnapshotId ?? '', 64 * MIB)).equals(models[index]));
  }
  assert.match(server.log(), /starting it again/);
});

test('kill -9 while a restored volume is hydrating: it is whole in the end, what was written to it too', async (t) => {
  const seed = chooseSeed();
  t.diagnostic(`seed ${seed}`);
  const random = seededRandom(seed);
  const dataDir = temporaryDirectory(t);
  let server = await startTestServer(t, { dataDir });
  const original = await launchInstance(server.ec2, [1]);
  const size = 96 * MIB;
  const model = randomBytes(size);
  const client = await server.connect(original.volumes[0]);
  for (let at = 0; at < size; at += 32 * MIB) await client.write(at, model.subarray(at, at + 32 * MIB));
  await client.close();
  const snapshots = await ended(server.ec2, await createSnapshots(server.ec2, original.instanceId));
  const [set] = (await server.admin.ask<{ sets: SetReport[] }>('sets')).sets;
  const copy = await server.admin.ask<RestoredSet>('restore-set', { setId: set.setId });
  const source = snapshots.find((each) => each.VolumeId === original.volumes[0])?.SnapshotId;
  const volume = copy.volumes.find((each) => each.snapshotId === source)?.volumeId ?? '';
  for (let life = 0; life < 3; life += 1) {
    const writer = await server.connect(volume);
    for (let write = 0; write < 10; write += 1) {
      const bytes = randomBytes(1 + Math.floor(random() * MIB));
      const offset = Math.floor(random() * (size - bytes.length));
      await writer.write(offset, bytes);
      bytes.copy(model, offset);
    }
    await new Promise((resolve) => setTimeout(resolve, random() * 60));
    await server.kill();
    writer.destroy();
    server = await startTestServer(t, { dataDir });
  }
  assert.ok((await readAll(server, volume, size)).equals(model), `seed ${seed}`);
  await server.stop();
});

test('an object store that is away for a while: guests go on, and the snapshot completes when it is back', async (t) => {
  const s3 = await startS3Server(t);
  const server = await startTestServer(t, { flags: ['--object-store', s3.url], environment: s3.environment });
  const instance = await launchInstance(server.ec2, [1]);
  const model = randomBytes(40 * MIB);
  const client = await server.connect(instance.volumes[0]);
  await client.write(0, model.subarray(0, 20 * MIB));
  await client.write(20 * MIB, model.subarray(20 * MIB));
  await s3.stop();
  const snapshots = await createSnapshots(server.ec2, instance.instanceId);
  const cut = Buffer.from(model);
  for (let write = 0; write < 50; write += 1) {
    await client.write(write * 100_000, Buffer.alloc(5000, write));
  }
  await s3.start();
  for (const snapshot of await ended(server.ec2, snapshots)) {
    assert.equal(snapshot.State, 'completed', snapshot.StateMessage ?? '');
    if (snapshot.VolumeId !== instance.volumes[0]) continue;
    assert.ok((await readAll(server, snapshot.SnapshotId ?? '', model.length)).equals(cut));
  }
  await client.close();
});

test('one snapshot of a set that fails takes the whole set with it, and says why', async (t) => {
  const s3 = await startS3Server(t);
  // Old pages of 1 MiB at most: a busy guest outruns an object store that is away.
  const server = await startTestServer(t, {
    flags: ['--object-store', s3.url, '--staging-limit-gib', String(1 / 1024)],
    environment: s3.environment,
  });
  const instance = await launchInstance(server.ec2, [1, 1]);
  const client = await server.connect(instance.volumes[0]);
  // More than an upload holds in memory while the store does not answer: the end is still unread when it is overwritten.
  for (let at = 0; at < 160 * MIB; at += 16 * MIB) await client.write(at, randomBytes(16 * MIB));
  await s3.stop();
  const snapshots = await createSnapshots(server.ec2, instance.instanceId);
  await client.write(144 * MIB, randomBytes(16 * MIB));
  await s3.start();
  const failed = await ended(server.ec2, snapshots);
  assert.deepEqual(
    failed.map((snapshot) => snapshot.State),
    ['error', 'error', 'error'],
  );
  for (const snapshot of failed) assert.match(snapshot.StateMessage ?? '', /overwritten before they were stored/);
  const [set] = (await server.admin.ask<{ sets: SetReport[] }>('sets')).sets;
  assert.equal(set.state, 'error');
  // The volume is none the worse for it, and its next snapshot has what this one owed.
  const again = await ended(server.ec2, await createSnapshots(server.ec2, instance.instanceId));
  assert.ok(again.every((snapshot) => snapshot.State === 'completed'));
  await client.close();
});

test('a stop and a start: instances run, volumes are exported, nothing has to be done twice', async (t) => {
  const dataDir = temporaryDirectory(t);
  const first = await startTestServer(t, { dataDir });
  const instance = await launchInstance(first.ec2, [1]);
  const client = await first.connect(instance.volumes[0]);
  await client.write(12345, Buffer.from('still here'));
  await client.close();
  assert.equal(await first.stop(), 0);
  const second = await startTestServer(t, { dataDir });
  const found = await second.ec2.send(new DescribeInstancesCommand({ InstanceIds: [instance.instanceId] }));
  assert.equal(found.Reservations?.[0].Instances?.[0].State?.Name, 'running');
  const again = await second.connect(instance.volumes[0]);
  assert.equal((await again.read(12345, 10)).toString(), 'still here');
  await again.close();
});

test('Ctrl-C in a terminal goes to every process, twice, and is an orderly stop all the same', async (t) => {
  const server = await startTestServer(t);
  const instance = await launchInstance(server.ec2, [1]);
  const client = await server.connect(instance.volumes[0]);
  await client.write(0, randomBytes(4096));
  const exited = once(server.process, 'exit');
  process.kill(-(server.process.pid ?? 0), 'SIGINT');
  process.kill(-(server.process.pid ?? 0), 'SIGINT');
  assert.deepEqual(await exited, [0, null]);
  const state = readFileSync(`${server.dataDir}/volumes/${instance.volumes[0]}/volume.json`, 'utf8');
  assert.equal((JSON.parse(state) as { clean: boolean }).clean, true);
  assert.doesNotMatch(server.log(), /starting it again/);
});

test('a second server on the same data directory is turned away', async (t) => {
  const dataDir = temporaryDirectory(t);
  await startTestServer(t, { dataDir });
  await assert.rejects(startTestServer(t, { dataDir }), /another cleancut server is using/);
});
