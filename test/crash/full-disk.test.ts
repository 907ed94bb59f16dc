import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { test } from 'node:test';
import { CreateTagsCommand, DescribeSnapshotsCommand, DescribeVolumesCommand } from '@aws-sdk/client-ec2';
import type { NbdClient } from '../../src/nbd/client.ts';
import { createSnapshots, ended, launchInstance } from '../support/instances.ts';
import { startTestServer } from '../support/server.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';
import { tool, withoutMounts } from '../support/tools.ts';

const MIB = 1024 * 1024;
const ENOSPC = 28;

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
  const mount = mkdtempSync(`${tmpdir()}/cleancut-full-`);
  await tool('mount', ['-t', 'tmpfs', '-o', 'size=80m', 'tmpfs', mount]);
  t.after(async () => {
    await tool('umount', ['-l', mount]);
    rmdirSync(mount);
  });
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
  writeFileSync(`${mount}/rest`, '');
  await tool('sh', ['-c', `dd if=/dev/zero of=${mount}/rest bs=4k 2>/dev/null || true`]);
  await assert.rejects(createSnapshots(server.ec2, instanceId), { name: 'InternalError' });
  const tag = () =>
    server.ec2.send(new CreateTagsCommand({ Resources: [instanceId], Tags: [{ Key: 'k', Value: 'v'.repeat(200) }] }));
  await Promise.all(
    Array.from({ length: 20 }, () => tag().catch((error: Error) => assert.equal(error.name, 'InternalError'))),
  );
  const { Snapshots = [] } = await server.ec2.send(new DescribeSnapshotsCommand({ OwnerIds: ['self'] }));
  assert.equal(Snapshots.length, first.length);

  rmSync(ballast);
  rmSync(`${mount}/rest`);
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
