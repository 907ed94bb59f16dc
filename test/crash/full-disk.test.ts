import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { CreateTagsCommand, DescribeSnapshotsCommand, DescribeVolumesCommand } from '@aws-sdk/client-ec2';
import type { NbdClient } from '../../src/nbd/client.ts';
import { NodeDisk } from '../../src/volumes/node-disk.ts';
import { createSnapshots, ended, launchInstance } from '../support/instances.ts';
import { startTestServer } from '../support/server.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';
import { tool, withoutMounts } from '../support/tools.ts';

const MIB = 1024 * 1024;
const ENOSPC = 28;

/** A disk of 80 MiB. @returns where it is mounted */
async function smallDisk(t: TestContext): Promise<string> {
  const mount = mkdtempSync(`${tmpdir()}/cleancut-full-`);
  await tool('mount', ['-t', 'tmpfs', '-o', 'size=80m', 'tmpfs', mount]);
  t.after(async () => {
    await tool('umount', ['-l', mount]);
    rmdirSync(mount);
  });
  return mount;
}

/** Takes all the room that is left. @returns the file to remove for having it back */
async function takeRest(mount: string): Promise<string> {
  const rest = `${mount}/rest`;
  writeFileSync(rest, '');
  await tool('sh', ['-c', `dd if=/dev/zero of=${rest} bs=4k 2>/dev/null || true`]);
  return rest;
}

async function writeUntilFull(client: NbdClient): Promise<number> {
  for (let written = 0; ; written += 1) {
    try {
      await client.write(written * MIB, randomBytes(MIB));
    } catch (error) {
      assert.equal((error as { number?: number }).number, ENOSPC, (error as Error).message);
      return written;
    }
  }
}

test('a full disk: the client that writes is told, the rest goes on, nothing half-done stays, and room heals all', {
  skip: withoutMounts('mount'),
}, async (t) => {
  const mount = await smallDisk(t);
  const ballast = `${mount}/ballast`;
  writeFileSync(ballast, Buffer.alloc(30 * MIB, 1));
  const server = await startTestServer(t, {
    dataDir: `${mount}/data`,
    flags: ['--object-store', `file://${temporaryDirectory(t)}/objects`],
  });
  const { instanceId, volumes } = await launchInstance(server.ec2, [1, 1]);
  const [filling, other] = await Promise.all(volumes.map((volume) => server.connect(volume)));
  const kept = randomBytes(2 * MIB);
  await other.write(0, kept);
  const first = await ended(server.ec2, await createSnapshots(server.ec2, instanceId));
  assert.ok(first.every((snapshot) => snapshot.State === 'completed'));

  const written = await writeUntilFull(filling);
  assert.ok(written > 5, `${written} MiB were written`);
  // Those who do not need room do not notice.
  assert.ok((await other.read(0, kept.length)).equals(kept));
  kept.fill(7, 0, 4096);
  await other.write(0, kept.subarray(0, 4096));
  await other.flush();
  await filling.read(0, MIB);
  const listed = await server.ec2.send(new DescribeVolumesCommand({}));
  assert.equal(listed.Volumes?.length, 3);
  // What cannot be written down is refused, and is not there.
  const rest = await takeRest(mount);
  await assert.rejects(createSnapshots(server.ec2, instanceId), { name: 'InternalError' });
  const tag = () =>
    server.ec2.send(new CreateTagsCommand({ Resources: [instanceId], Tags: [{ Key: 'k', Value: 'v'.repeat(200) }] }));
  await Promise.all(
    Array.from({ length: 20 }, () => tag().catch((error: Error) => assert.equal(error.name, 'InternalError'))),
  );
  const { Snapshots = [] } = await server.ec2.send(new DescribeSnapshotsCommand({ OwnerIds: ['self'] }));
  assert.equal(Snapshots.length, first.length);

  rmSync(ballast);
  rmSync(rest);
  const more = randomBytes(MIB);
  await filling.write(written * MIB, more);
  await filling.flush();
  await tag();
  const second = await ended(server.ec2, await createSnapshots(server.ec2, instanceId));
  for (const { State, StateMessage, VolumeId, SnapshotId = '' } of second) {
    assert.equal(State, 'completed', StateMessage ?? '');
    const reader = await server.connect(SnapshotId);
    if (VolumeId === volumes[0]) assert.ok((await reader.read(written * MIB, MIB)).equals(more));
    if (VolumeId === volumes[1]) assert.ok((await reader.read(0, kept.length)).equals(kept));
    await reader.close();
  }
  await filling.close();
  await other.close();
  assert.equal(await server.stop(), 0);
});

/** No store, so that snapshots must wait for it. @returns what brings it back */
function takeAway(objects: string): () => void {
  renameSync(objects, `${objects}.away`);
  writeFileSync(objects, '');
  return () => {
    rmSync(objects);
    renameSync(`${objects}.away`, objects);
  };
}

const DATA_VOLUMES = (InstanceId: string) => ({ InstanceSpecification: { InstanceId, ExcludeBootVolume: true } });

test('old pages for which there is no room: the snapshot fails at once, the write is done', {
  skip: withoutMounts('mount'),
}, async (t) => {
  const mount = await smallDisk(t);
  const dataDir = `${temporaryDirectory(t)}/data`;
  mkdirSync(dataDir);
  symlinkSync(mount, `${dataDir}/volumes`);
  const server = await startTestServer(t, { dataDir });
  const { instanceId, volumes } = await launchInstance(server.ec2, [1]);
  const client = await server.connect(volumes[0]);
  await client.write(0, randomBytes(8 * MIB));
  await ended(server.ec2, await createSnapshots(server.ec2, instanceId, DATA_VOLUMES(instanceId)));
  await client.write(0, randomBytes(8 * MIB));
  const bringBack = takeAway(`${dataDir}/objects`);
  const waiting = await createSnapshots(server.ec2, instanceId, DATA_VOLUMES(instanceId));
  const rest = await takeRest(mount);
  const now = randomBytes(8 * MIB);
  await client.write(0, now);
  const [lost] = await ended(server.ec2, waiting);
  assert.equal(lost.State, 'error', 'while the store is away');
  assert.match(lost.StateMessage ?? '', /old bytes of a block could not be saved.*ENOSPC/);
  assert.ok((await client.read(0, now.length)).equals(now));
  rmSync(rest);
  bringBack();
  const [next] = await ended(server.ec2, await createSnapshots(server.ec2, instanceId, DATA_VOLUMES(instanceId)));
  assert.equal(next.State, 'completed', next.StateMessage ?? '');
  const reader = await server.connect(next.SnapshotId ?? '');
  assert.ok((await reader.read(0, now.length)).equals(now));
  await Promise.all([reader.close(), client.close()]);
  assert.equal(await server.stop(), 0);
});

test('a snapshot that was given up stays so after a kill, where the full disk kept the catalog from knowing', {
  skip: withoutMounts('mount'),
}, async (t) => {
  const mount = await smallDisk(t);
  const objects = `${temporaryDirectory(t)}/objects`;
  const options = { dataDir: `${mount}/data`, flags: ['--object-store', `file://${objects}`] };
  let server = await startTestServer(t, options);
  const { instanceId, volumes } = await launchInstance(server.ec2, [1]);
  const client = await server.connect(volumes[0]);
  await client.write(0, randomBytes(8 * MIB));
  await ended(server.ec2, await createSnapshots(server.ec2, instanceId, DATA_VOLUMES(instanceId)));
  await client.write(0, randomBytes(8 * MIB));
  const bringBack = takeAway(objects);
  const waiting = await createSnapshots(server.ec2, instanceId, DATA_VOLUMES(instanceId));
  const rest = await takeRest(mount);
  await client.write(0, randomBytes(8 * MIB));
  await server.kill();
  client.destroy();
  rmSync(rest);
  bringBack();
  server = await startTestServer(t, options);
  const [lost] = await ended(server.ec2, waiting);
  assert.equal(lost.State, 'error', 'its bytes are those of later writes');
  assert.ok(lost.StateMessage);
  assert.equal(await server.stop(), 0);
});

test('a small file that is replaced while there is room for a part of it stays as it was', {
  skip: withoutMounts('mount'),
}, async (t) => {
  const mount = await smallDisk(t);
  const disk = new NodeDisk();
  await disk.replaceText(`${mount}/keyring.json`, 'as it was');
  const rest = await takeRest(mount);
  // One page is free: the write of two is cut short, without an error.
  await tool('truncate', ['-s', '-4096', rest]);
  await assert.rejects(disk.replaceText(`${mount}/keyring.json`, 'x'.repeat(8192)), /ENOSPC/);
  assert.equal(disk.readText(`${mount}/keyring.json`), 'as it was');
});

test('a server is started again on a full disk, and its guests have their volumes', {
  skip: withoutMounts('mount'),
}, async (t) => {
  const mount = await smallDisk(t);
  const dataDir = `${mount}/data`;
  const flags = ['--object-store', `file://${temporaryDirectory(t)}/objects`];
  const first = await startTestServer(t, { dataDir, flags });
  const { volumes } = await launchInstance(first.ec2, [1]);
  const bytes = randomBytes(MIB);
  const guest = await first.connect(volumes[0]);
  await guest.write(0, bytes);
  await guest.flush();
  for (let left = 100; !existsSync(`${dataDir}/reserve`) && left > 0; left -= 1) await sleep(50);
  assert.equal(statSync(`${dataDir}/reserve`).size, 8 * MIB);
  await guest.close();
  // Closed cleanly, the catalog's log is gone, and has to be made anew.
  assert.equal(await first.stop(), 0);
  await takeRest(mount);
  const again = await startTestServer(t, { dataDir, flags });
  const back = await again.connect(volumes[0]);
  assert.ok((await back.read(0, bytes.length)).equals(bytes));
  await back.write(0, bytes.subarray(0, 4096));
  await back.close();
  assert.equal((await again.ec2.send(new DescribeVolumesCommand({}))).Volumes?.length, 2);
  assert.equal(await again.stop(), 0);
});
