import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { type TestContext, test } from 'node:test';
import { AttachVolumeCommand, DescribeVolumeStatusCommand, DetachVolumeCommand } from '@aws-sdk/client-ec2';
import type { NbdClient } from '../../src/nbd/client.ts';
import { createSnapshots, ended, launchInstance } from '../support/instances.ts';
import { mountExport } from '../support/mounted-volume.ts';
import { startTestServer, type TestServer } from '../support/server.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';
import { tool, withoutMounts } from '../support/tools.ts';

const MIB = 1024 * 1024;
const EIO = 5;

/** The disk: an ext4 without a journal, so that it is usable again as soon as its device is. */
async function failingDisk(): Promise<{ path: string; fail: string; remove: () => Promise<void> }> {
  const directory = mkdtempSync(`${tmpdir()}/cleancut-failing-`);
  const image = `${directory}/image`;
  const fail = `${directory}/fail`;
  const socket = `${directory}/socket`;
  writeFileSync(image, '');
  truncateSync(image, 400 * MIB);
  await tool('mkfs.ext4', ['-q', '-F', '-O', '^has_journal', image]);
  const argv = ['-f', '-U', socket, '--filter=error', 'file', image, 'error=EIO', 'error-pwrite-rate=1'];
  const nbdkit = spawn('nbdkit', [...argv, `error-file=${fail}`], { stdio: 'ignore' });
  while (!existsSync(socket)) {
    if (nbdkit.exitCode !== null) throw new Error(`nbdkit ended with ${nbdkit.exitCode}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  const mounted = await mountExport(directory, 'disk', `nbd+unix:///?socket=${socket}`, false);
  return {
    path: mounted.path,
    fail,
    async remove() {
      rmSync(fail, { force: true });
      for (let tries = 1; ; tries += 1) {
        try {
          await mounted.unmount();
          break;
        } catch (error) {
          // A worker of a killed server may still be on its way out.
          if (tries === 50) throw error;
          await new Promise((resolve) => setTimeout(resolve, 100));
        }
      }
      nbdkit.kill();
      rmSync(directory, { recursive: true });
    },
  };
}

/** A server whose volumes, and nothing else, are on such a disk, and a volume of it. */
async function onFailingDisk(t: TestContext) {
  const disk = await failingDisk();
  const dataDir = `${temporaryDirectory(t)}/data`;
  mkdirSync(dataDir);
  mkdirSync(`${disk.path}/volumes`);
  symlinkSync(`${disk.path}/volumes`, `${dataDir}/volumes`);
  const server = await startTestServer(t, { dataDir });
  // After the server's own end: it must let go of its files before.
  t.after(disk.remove);
  const { instanceId, volumes } = await launchInstance(server.ec2, [1]);
  return { disk, dataDir, server, instanceId, VolumeId: volumes[0] };
}

/** What an operator does once the disk is well again. */
async function attachAnew(server: TestServer, VolumeId: string, InstanceId: string): Promise<NbdClient> {
  await server.ec2.send(new DetachVolumeCommand({ VolumeId }));
  await server.ec2.send(new AttachVolumeCommand({ VolumeId, InstanceId, Device: '/dev/sdf' }));
  return server.connect(VolumeId);
}

async function refused(request: Promise<unknown>): Promise<void> {
  await assert.rejects(request, (error: Error & { number?: number }) => error.number === EIO);
}

test('a disk that refuses a sync: the client is told, and all others who ask, until the volume is attached anew', {
  skip: withoutMounts('nbdkit', 'nbdfuse', 'losetup', 'mkfs.ext4', 'mount', 'fusermount3'),
}, async (t) => {
  const { disk, server, instanceId, VolumeId } = await onFailingDisk(t);
  const status = async (): Promise<string | undefined> => {
    const asked = new DescribeVolumeStatusCommand({ VolumeIds: [VolumeId] });
    const [found] = (await server.ec2.send(asked)).VolumeStatuses ?? [];
    assert.equal(found.Events?.length, found.VolumeStatus?.Status === 'ok' ? 0 : 1);
    return found.VolumeStatus?.Status;
  };
  const faults = async (): Promise<string | undefined> => {
    const text = await (await fetch(`${server.apiUrl}/metrics`)).text();
    return new RegExp(`cleancut_volume_faulted\\{volume="${VolumeId}"\\} (\\d)`).exec(text)?.[1];
  };
  const client: NbdClient = await server.connect(VolumeId);
  const flushed = randomBytes(2 * MIB);
  await client.write(0, flushed);
  await client.flush();
  const options = { InstanceSpecification: { InstanceId: instanceId, ExcludeBootVolume: true } };
  await ended(server.ec2, await createSnapshots(server.ec2, instanceId, options));
  assert.equal(await status(), 'ok');
  assert.equal(await faults(), '0');

  await client.write(MIB, randomBytes(MIB));
  writeFileSync(disk.fail, '');
  await refused(client.flush());
  rmSync(disk.fail);
  // The disk is well again, and would say yes to the next sync; but what it has refused it does not write any more.
  await refused(client.flush());
  await refused(client.write(0, Buffer.alloc(4096)));
  await refused(client.read(0, 4096));
  assert.equal(await status(), 'impaired');
  assert.equal(await faults(), '1');
  await assert.rejects(createSnapshots(server.ec2, instanceId, options), { name: 'InternalError' });

  const again = await attachAnew(server, VolumeId, instanceId);
  assert.equal(await status(), 'ok');
  const now = await again.read(0, 2 * MIB);
  assert.ok(now.subarray(0, MIB).equals(flushed.subarray(0, MIB)), 'what was flushed is there');
  await again.write(MIB / 2, Buffer.alloc(4096, 7));
  now.fill(7, MIB / 2, MIB / 2 + 4096);
  await again.flush();
  const [after] = await ended(server.ec2, await createSnapshots(server.ec2, instanceId, options));
  assert.equal(after.State, 'completed', after.StateMessage ?? '');
  const reader = await server.connect(after.SnapshotId ?? '');
  assert.ok((await reader.read(0, 2 * MIB)).equals(now), 'a snapshot is what the volume is');
  await Promise.all([reader.close(), again.close(), client.close().catch(() => undefined)]);
  assert.equal(await server.stop(), 0);
});

test('a disk that refuses the sync of a detaching volume: nothing dies of it, and the next attachment is anew', {
  skip: withoutMounts('nbdkit', 'nbdfuse', 'losetup', 'mkfs.ext4', 'mount', 'fusermount3'),
}, async (t) => {
  const { disk, server, instanceId, VolumeId } = await onFailingDisk(t);
  const client = await server.connect(VolumeId);
  await client.write(0, Buffer.alloc(4096, 1));
  await client.flush();
  await client.write(MIB, randomBytes(MIB));
  writeFileSync(disk.fail, '');
  await assert.rejects(server.ec2.send(new DetachVolumeCommand({ VolumeId })), { name: 'InternalError' });
  rmSync(disk.fail);
  const again = await attachAnew(server, VolumeId, instanceId);
  assert.ok((await again.read(0, 4096)).equals(Buffer.alloc(4096, 1)));
  await again.flush();
  await again.close();
  await client.close().catch(() => undefined);
  assert.doesNotMatch(server.log(), /worker \d+ ended/);
  assert.match(server.log(), /failed to sync/);
  assert.equal(await server.stop(), 0);
});

test('a disk that refuses bytes which nobody has synced: no snapshot of them is said to be complete', {
  skip: withoutMounts('nbdkit', 'nbdfuse', 'losetup', 'mkfs.ext4', 'mount', 'fusermount3'),
}, async (t) => {
  const { disk, dataDir, server, instanceId, VolumeId } = await onFailingDisk(t);
  const client = await server.connect(VolumeId);
  const options = { InstanceSpecification: { InstanceId: instanceId, ExcludeBootVolume: true } };
  await client.write(0, randomBytes(2 * MIB));
  await client.flush();
  await ended(server.ec2, await createSnapshots(server.ec2, instanceId, options));

  await client.write(0, randomBytes(MIB));
  await client.flush();
  // The store is away: the snapshot has to wait, and the next write saves old pages.
  renameSync(`${dataDir}/objects`, `${dataDir}/objects.away`);
  writeFileSync(`${dataDir}/objects`, '');
  const waiting = await createSnapshots(server.ec2, instanceId, options);
  await client.write(0, randomBytes(MIB));
  writeFileSync(disk.fail, '');
  // Not the server's sync, but what the kernel does by itself after half a minute.
  await assert.rejects(tool('sync', ['-f', disk.path]));
  rmSync(disk.fail);
  rmSync(`${dataDir}/objects`);
  renameSync(`${dataDir}/objects.away`, `${dataDir}/objects`);
  const [lost] = await ended(server.ec2, waiting);
  assert.equal(lost.State, 'error');
  assert.match(lost.StateMessage ?? '', /closed to all requests: EIO: sync_file_range/);
  await refused(client.flush());

  const again = await attachAnew(server, VolumeId, instanceId);
  const now = await again.read(0, 2 * MIB);
  // What was refused is not read any more, from no memory: the file system is asked for what is on the disk.
  await tool('sh', ['-c', 'echo 1 > /proc/sys/vm/drop_caches']);
  assert.ok((await again.read(0, 2 * MIB)).equals(now), 'it does not change afterwards');
  const [after] = await ended(server.ec2, await createSnapshots(server.ec2, instanceId, options));
  assert.equal(after.State, 'completed', after.StateMessage ?? '');
  const reader = await server.connect(after.SnapshotId ?? '');
  assert.ok((await reader.read(0, 2 * MIB)).equals(now), 'a snapshot is what the volume is');
  await Promise.all([reader.close(), again.close(), client.close().catch(() => undefined)]);
  assert.equal(await server.stop(), 0);
});
