import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { test } from 'node:test';
import { AttachVolumeCommand, CreateVolumeCommand } from '@aws-sdk/client-ec2';
import { createSnapshots, ended, launchInstance } from './support/instances.ts';
import { childrenOf } from './support/processes.ts';
import { startTestServer } from './support/server.ts';

const TIB = 1024 ** 4;
const LIMIT_BYTES = 512 * 1024 * 1024;

/** The most memory (bytes) that a process ever held. */
function peakMemory(pid: number): number {
  const line = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'));
  return Number(line?.[1]) * 1024;
}

test('a 16 TiB volume, written to here and there, is snapshotted and restored within 512 MiB', async (t) => {
  const server = await startTestServer(t);
  const instance = await launchInstance(server.ec2, []);
  const attach = (VolumeId: string | undefined, Device: string) =>
    server.ec2.send(new AttachVolumeCommand({ VolumeId, InstanceId: instance.instanceId, Device }));
  const volume = await server.ec2.send(
    new CreateVolumeCommand({ AvailabilityZone: 'us-east-1a', Size: 16_384, VolumeType: 'gp3' }),
  );
  await attach(volume.VolumeId, '/dev/sdf');
  const client = await server.connect(volume.VolumeId ?? '');
  assert.equal(client.sizeBytes, 16 * TIB);
  // The ends, the seam between the two files of 8 TiB, and places in between.
  const places = [0, 777, TIB, 5 * TIB + 12_345, 8 * TIB - 5000, 11 * TIB, 16 * TIB - 100_000];
  const written = places.map((offset) => ({ offset, bytes: randomBytes(100_000) }));
  for (const { offset, bytes } of written) await client.write(offset, bytes);
  // 0 and 777 overlap: what the later one left of the earlier.
  written[0].bytes = Buffer.concat([written[0].bytes.subarray(0, 777), written[1].bytes.subarray(0, 100_000 - 777)]);
  await client.flush();
  const [first] = await ended(
    server.ec2,
    await createSnapshots(server.ec2, instance.instanceId, {
      InstanceSpecification: { InstanceId: instance.instanceId, ExcludeBootVolume: true },
    }),
  );
  assert.equal(first.State, 'completed', first.StateMessage ?? '');
  assert.ok((first.FullSnapshotSizeInBytes ?? 0) <= places.length * 2 * 524_288);

  // One block more: the second snapshot stores that, one leaf, one branch and the root.
  const before = objectCount(`${server.dataDir}/objects`);
  await client.write(3 * TIB, randomBytes(1000));
  const [second] = await ended(
    server.ec2,
    await createSnapshots(server.ec2, instance.instanceId, {
      InstanceSpecification: { InstanceId: instance.instanceId, ExcludeBootVolume: true },
    }),
  );
  assert.equal(objectCount(`${server.dataDir}/objects`) - before, 5, 'a pack, three nodes, and the record');
  await client.close();

  const copy = await server.ec2.send(
    new CreateVolumeCommand({ AvailabilityZone: 'us-east-1a', SnapshotId: second.SnapshotId, VolumeType: 'gp3' }),
  );
  assert.equal(copy.Size, 16_384);
  await attach(copy.VolumeId, '/dev/sdg');
  const restored = await server.connect(copy.VolumeId ?? '');
  for (const { offset, bytes } of written)
    assert.ok((await restored.read(offset, bytes.length)).equals(bytes), `at ${offset}`);
  assert.ok((await restored.read(6 * TIB, 1_000_000)).equals(Buffer.alloc(1_000_000)));
  await restored.close();

  const pid = server.process.pid ?? 0;
  const memory = [pid, ...childrenOf(pid)].map(peakMemory);
  const sum = memory.reduce((total, bytes) => total + bytes, 0);
  t.diagnostic(
    `peak memory ${Math.round(sum / 1024 ** 2)} MiB in ${memory.length} processes (${memory.map((bytes) => Math.round(bytes / 1024 ** 2)).join(' + ')})`,
  );
  assert.ok(sum < LIMIT_BYTES, `${sum} bytes`);
});

function objectCount(directory: string): number {
  let count = 0;
  for (const name of readdirSync(directory)) {
    const path = `${directory}/${name}`;
    count += statSync(path).isDirectory() ? objectCount(path) : 1;
  }
  return count;
}
