import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { DatabaseSync } from 'node:sqlite';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  CreateVolumeCommand,
  DescribeReplaceRootVolumeTasksCommand,
  DescribeSnapshotsCommand,
  DescribeVolumesCommand,
  type EC2Client,
} from '@aws-sdk/client-ec2';
import type { NbdClient } from '../../src/nbd/client.ts';
import { createSnapshots, ended, launchInstance } from '../support/instances.ts';
import { childrenOf } from '../support/processes.ts';
import { startTestServer, type TestServer } from '../support/server.ts';

const ZONE = 'us-east-1a';

async function emptyVolume(ec2: EC2Client): Promise<string> {
  const made = await ec2.send(new CreateVolumeCommand({ AvailabilityZone: ZONE, Size: 1 }));
  return made.VolumeId ?? '';
}

async function volumeStates(ec2: EC2Client): Promise<Map<string | undefined, string | undefined>> {
  const { Volumes = [] } = await ec2.send(new DescribeVolumesCommand({}));
  return new Map(Volumes.map((volume) => [volume.VolumeId, volume.State]));
}

async function connectSoon(server: TestServer, exportName: string): Promise<NbdClient> {
  for (let left = 200; ; left -= 1) {
    try {
      return await server.connect(exportName);
    } catch (error) {
      if (left === 0) throw error;
      await sleep(50);
    }
  }
}

test('what is broken keeps neither the server from starting nor other volumes from their guests', async (t) => {
  const before = await startTestServer(t);
  const { dataDir } = before;
  const [hurt, other] = [await launchInstance(before.ec2, [1, 1]), await launchInstance(before.ec2, [1])];
  const bytes = randomBytes(65_536);
  for (const volume of [...hurt.volumes, ...other.volumes]) {
    const client = await before.connect(volume);
    await client.write(0, bytes);
    await client.flush();
    await client.close();
  }
  const [unmade, unfinished] = [await emptyVolume(before.ec2), await emptyVolume(before.ec2)];
  // A store that takes nothing, so that the cuts are pending when the server ends.
  mkdirSync(`${dataDir}/objects`, { recursive: true });
  writeFileSync(`${dataDir}/objects/packs`, '');
  const pending = await createSnapshots(before.ec2, hurt.instanceId);
  const kept = await createSnapshots(before.ec2, other.instanceId);
  await before.kill();
  rmSync(`${dataDir}/objects/packs`);

  // A volume whose files are gone; one that was being made, and cannot be; a new root that had not taken its place yet.
  renameSync(`${dataDir}/volumes/${hurt.volumes[0]}`, `${dataDir}/elsewhere`);
  rmSync(`${dataDir}/volumes/${unmade}`, { recursive: true });
  const catalog = new DatabaseSync(`${dataDir}/catalog.sqlite`);
  // Not a whole number of blocks.
  catalog.prepare("update volumes set state = 'creating', size_gib = 1.0001 where volume_id = ?").run(unmade);
  catalog.prepare("update volumes set client_token = 'replacevol-0' where volume_id = ?").run(unfinished);
  const columns = 'task_id, account_id, region, instance_id, delete_replaced, state, started_at';
  catalog
    .prepare(
      `insert into replace_root_tasks (${columns}) select 'replacevol-0', account_id, region, ?, 0, 'in-progress', created_at from volumes where volume_id = ?`,
    )
    .run(hurt.instanceId, unfinished);
  catalog.close();

  const server = await startTestServer(t, { dataDir });
  for (const volume of [hurt.volumes[1], ...other.volumes]) {
    const client = await server.connect(volume);
    assert.ok((await client.read(0, bytes.length)).equals(bytes));
    await client.close();
  }
  await assert.rejects(server.connect(hurt.volumes[0]));
  const failed = await ended(server.ec2, pending);
  assert.ok(failed.every((snapshot) => snapshot.State === 'error'));
  const { Snapshots = [] } = await server.ec2.send(
    new DescribeSnapshotsCommand({ Filters: [{ Name: 'volume-id', Values: [hurt.volumes[0]] }] }),
  );
  assert.match(Snapshots[0].StateMessage ?? '', /no such file/);
  assert.ok((await ended(server.ec2, kept)).every((snapshot) => snapshot.State === 'completed'));
  const tasks = await server.ec2.send(new DescribeReplaceRootVolumeTasksCommand({}));
  assert.deepEqual(
    tasks.ReplaceRootVolumeTasks?.map((task) => task.TaskState),
    ['failed'],
  );
  const states = await volumeStates(server.ec2);
  assert.ok(!states.has(unfinished) && !existsSync(`${dataDir}/volumes/${unfinished}`));
  assert.equal(states.get(unmade), 'creating');
  assert.match(server.log(), new RegExp(`${unmade} is not as it should be`));

  // What was missing is there again: what was begun is finished, and the volume that was broken is exported.
  const healed = new DatabaseSync(`${dataDir}/catalog.sqlite`);
  healed.prepare('update volumes set size_gib = 1 where volume_id = ?').run(unmade);
  healed.close();
  renameSync(`${dataDir}/elsewhere`, `${dataDir}/volumes/${hurt.volumes[0]}`);
  // (Once a minute, or when a worker has come back.)
  const [worker] = childrenOf(server.process.pid ?? 0);
  process.kill(worker, 'SIGKILL');
  while ((await volumeStates(server.ec2)).get(unmade) !== 'available') await sleep(50);
  // They are finished side by side: this one's export may come a moment later.
  const client = await connectSoon(server, hurt.volumes[0]);
  assert.ok((await client.read(0, bytes.length)).equals(bytes));
  await client.close();
  await server.stop();
});
