import assert from 'node:assert/strict';
import { createHash, randomBytes, randomInt } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import {
  CreateSnapshotCommand,
  CreateTagsCommand,
  DeleteSnapshotCommand,
  DescribeLockedSnapshotsCommand,
  DescribeSnapshotsCommand,
  DescribeVolumesCommand,
  ListSnapshotsInRecycleBinCommand,
  LockSnapshotCommand,
  ModifySnapshotAttributeCommand,
  RestoreSnapshotFromRecycleBinCommand,
  StartInstancesCommand,
} from '@aws-sdk/client-ec2';
import type { RestoredSet } from '../../src/admin/restore-set.ts';
import type { SetReport } from '../../src/admin/sets.ts';
import { createSnapshots, ended, launchInstance } from '../support/instances.ts';
import { startS3Server } from '../support/s3-server.ts';
import { readCredentials, startTestServer, type TestServer } from '../support/server.ts';
import { rest, send, sign } from '../support/signed-request.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';
import { tool } from '../support/tools.ts';

const CLEANCUT = new URL('../../bin/cleancut.js', import.meta.url).pathname;
const MIB = 1024 * 1024;

async function digestOf(server: TestServer, name: string, bytes: number): Promise<string> {
  const client = await server.connect(name);
  const hash = createHash('sha256');
  for (let at = 0; at < bytes; at += 4 * MIB) hash.update(await client.read(at, 4 * MIB));
  await client.close();
  return hash.digest('hex');
}

test('the local disk is gone: a rebuild from the bucket alone brings every snapshot back, and volumes made of them are the same', async (t) => {
  const s3 = await startS3Server(t);
  const flags = ['--object-store', s3.url];
  const server = await startTestServer(t, { flags, environment: s3.environment });
  const instance = await launchInstance(server.ec2, [1, 1]);
  for (const volume of instance.volumes) {
    const client = await server.connect(volume);
    await client.write(0, randomBytes(6 * MIB));
    await client.close();
  }
  const first = await createSnapshots(server.ec2, instance.instanceId, {
    Description: 'the first',
    TagSpecifications: [{ ResourceType: 'snapshot', Tags: [{ Key: 'run', Value: '1' }] }],
  });
  const client = await server.connect(instance.volumes[0]);
  await client.write(MIB, randomBytes(MIB));
  await client.close();
  const second = await createSnapshots(server.ec2, instance.instanceId);
  const before = [...(await ended(server.ec2, first)), ...(await ended(server.ec2, second))];
  // What changes after completion is in the bucket too.
  const [tagged] = before;
  await server.ec2.send(
    new CreateTagsCommand({ Resources: [tagged.SnapshotId ?? ''], Tags: [{ Key: 'later', Value: 'yes' }] }),
  );
  await server.ec2.send(
    new ModifySnapshotAttributeCommand({
      SnapshotId: tagged.SnapshotId,
      OperationType: 'add',
      UserIds: ['000000000002'],
    }),
  );
  await server.ec2.send(
    new LockSnapshotCommand({ SnapshotId: tagged.SnapshotId, LockMode: 'compliance', LockDuration: 30 }),
  );
  const locked = (await server.ec2.send(new DescribeLockedSnapshotsCommand({}))).Snapshots;
  const described = (await server.ec2.send(new DescribeSnapshotsCommand({ OwnerIds: ['self'] }))).Snapshots;
  const sets = (await server.admin.ask<{ sets: SetReport[] }>('sets')).sets;
  const digests = new Map<string, string>();
  for (const { SnapshotId = '' } of before) digests.set(SnapshotId, await digestOf(server, SnapshotId, 8 * MIB));
  await server.stop();
  rmSync(server.dataDir, { recursive: true });

  const dataDir = temporaryDirectory(t);
  const rebuild = () =>
    tool(
      process.execPath,
      [CLEANCUT, 'rebuild', '--object-store', s3.url, '--data-dir', dataDir, '--snapshots-only', '--json'],
      s3.environment,
    );
  assert.deepEqual(JSON.parse(await rebuild()), {
    snapshots: 6,
    sets: 2,
    known: 0,
    partialSets: [],
    unreadable: [],
    catalog: null,
    volumes: [],
  });
  assert.deepEqual(JSON.parse(await rebuild()), {
    snapshots: 0,
    sets: 0,
    known: 6,
    partialSets: [],
    unreadable: [],
    catalog: null,
    volumes: [],
  });
  const again = await startTestServer(t, { dataDir, flags, environment: s3.environment });
  assert.deepEqual((await again.ec2.send(new DescribeSnapshotsCommand({ OwnerIds: ['self'] }))).Snapshots, described);
  assert.deepEqual((await again.ec2.send(new DescribeLockedSnapshotsCommand({}))).Snapshots, locked);
  const remove = new DeleteSnapshotCommand({ SnapshotId: tagged.SnapshotId });
  await assert.rejects(again.ec2.send(remove), { name: 'SnapshotLocked' });
  const setsAgain = (await again.admin.ask<{ sets: SetReport[] }>('sets')).sets;
  assert.deepEqual(setsAgain.map((set) => set.setId).sort(), sets.map((set) => set.setId).sort());
  const restored = await again.admin.ask<RestoredSet>('restore-set', { setId: sets[1].setId });
  assert.equal(restored.from, instance.instanceId);
  for (const { volumeId, snapshotId } of restored.volumes) {
    assert.equal(await digestOf(again, volumeId, 8 * MIB), digests.get(snapshotId ?? ''));
  }
  for (const [id, digest] of digests) assert.equal(await digestOf(again, id, 8 * MIB), digest);
  // And the bucket is its own now: what it does not know of is not taken for garbage of someone else.
  assert.equal((await again.admin.ask<{ objects: number }>('collect', { remove: false })).objects, 0);
});

test('what was in the recycle bin is there again after a rebuild from the bucket alone, and comes back whole', async (t) => {
  const objects = temporaryDirectory(t);
  const flags = ['--object-store', `file://${objects}`];
  const server = await startTestServer(t, { flags });
  const { instanceId, root } = await launchInstance(server.ec2, []);
  const client = await server.connect(root);
  await client.write(0, randomBytes(4 * MIB));
  await client.close();
  const [kept] = await ended(server.ec2, await createSnapshots(server.ec2, instanceId));
  const id = kept.SnapshotId ?? '';
  const digest = await digestOf(server, id, 4 * MIB);
  const rule = JSON.stringify({
    ResourceType: 'EBS_SNAPSHOT',
    RetentionPeriod: { RetentionPeriodValue: 1, RetentionPeriodUnit: 'DAYS' },
  });
  const signing = { service: 'rbin', credentials: readCredentials(server.dataDir) };
  const made = await send(server.apiUrl, await sign(server.apiUrl, rest('POST', '/rules', {}, rule), signing));
  assert.equal(made.status, 201);
  const [gone] = await ended(server.ec2, await createSnapshots(server.ec2, instanceId));
  for (const SnapshotId of [id, gone.SnapshotId]) await server.ec2.send(new DeleteSnapshotCommand({ SnapshotId }));
  // One is taken back, and deleted for good: its record must not say that it is there.
  await server.ec2.send(new RestoreSnapshotFromRecycleBinCommand({ SnapshotId: gone.SnapshotId }));
  const rulePath = `/rules/${(JSON.parse(made.body) as { Identifier: string }).Identifier}`;
  assert.equal((await send(server.apiUrl, await sign(server.apiUrl, rest('DELETE', rulePath), signing))).status, 204);
  await server.ec2.send(new DeleteSnapshotCommand({ SnapshotId: gone.SnapshotId }));
  const binned = (await server.ec2.send(new ListSnapshotsInRecycleBinCommand({}))).Snapshots;
  assert.deepEqual(
    binned?.map(({ SnapshotId }) => SnapshotId),
    [id],
  );
  await server.stop();

  const dataDir = temporaryDirectory(t);
  await tool(process.execPath, [CLEANCUT, 'rebuild', ...flags, '--data-dir', dataDir, '--snapshots-only']);
  const again = await startTestServer(t, { dataDir, flags });
  assert.deepEqual((await again.ec2.send(new DescribeSnapshotsCommand({ OwnerIds: ['self'] }))).Snapshots, []);
  assert.deepEqual((await again.ec2.send(new ListSnapshotsInRecycleBinCommand({}))).Snapshots, binned);
  await again.ec2.send(new RestoreSnapshotFromRecycleBinCommand({ SnapshotId: id }));
  assert.equal(await digestOf(again, id, 4 * MIB), digest);
});

test('verify finds each bad block and says whose it is; what is whole is said to be whole', async (t) => {
  const server = await startTestServer(t);
  const objects = `${server.dataDir}/objects`;
  const instance = await launchInstance(server.ec2, [1]);
  const client = await server.connect(instance.volumes[0]);
  await client.write(0, randomBytes(4 * MIB));
  const specification = { InstanceSpecification: { InstanceId: instance.instanceId, ExcludeBootVolume: true } };
  const [one] = await ended(server.ec2, await createSnapshots(server.ec2, instance.instanceId, specification));
  await client.write(MIB, randomBytes(MIB));
  const [two] = await ended(server.ec2, await createSnapshots(server.ec2, instance.instanceId, specification));
  await client.close();
  const verify = (...argv: string[]) =>
    tool(process.execPath, [CLEANCUT, 'verify', ...argv, '--json', '--data-dir', server.dataDir]).then(
      (out) => ({ code: 0, report: JSON.parse(out) }),
      (error: { code: number; stdout: string }) => ({ code: error.code, report: JSON.parse(error.stdout) }),
    );
  const whole = await verify();
  assert.deepEqual([whole.code, whole.report.snapshots, whole.report.blocks, whole.report.damage], [0, 2, 8 + 2, []]);

  // One byte of a block that both share (the first of the first pack).
  const packs = readdirSync(`${objects}/packs`).flatMap((folder) =>
    readdirSync(`${objects}/packs/${folder}`).map((name) => `${objects}/packs/${folder}/${name}`),
  );
  const shared = packs
    .map((path) => ({ path, bytes: readFileSync(path) }))
    .sort((a, b) => b.bytes.length - a.bytes.length)[0];
  const lying = Buffer.from(shared.bytes);
  lying[32 + 1000] ^= 1;
  writeFileSync(shared.path, lying);
  const damaged = await verify();
  assert.equal(damaged.code, 1);
  assert.equal(damaged.report.damage.length, 1);
  const [{ object, what, affected }] = damaged.report.damage;
  assert.ok(shared.path.endsWith(object));
  assert.match(what, /has the hash/);
  assert.deepEqual(
    affected.map((each: { snapshotId: string; blocks: number[] }) => [each.snapshotId, each.blocks]).sort(),
    [
      [one.SnapshotId, [0]],
      [two.SnapshotId, [0]],
    ].sort(),
  );
  // A guest gets an error, never the wrong bytes.
  const reader = await server.connect(one.SnapshotId ?? '');
  await assert.rejects(reader.read(0, 4096), { number: 5 });
  assert.equal((await reader.read(524_288, 4096)).length, 4096);
  await reader.close();
  writeFileSync(shared.path, shared.bytes);
  assert.equal((await verify(two.SnapshotId ?? '')).code, 0);

  rmSync(shared.path);
  const missing = await verify('--set', (await server.admin.ask<{ sets: SetReport[] }>('sets')).sets[1].setId);
  assert.equal(missing.code, 1);
  assert.equal(missing.report.damage[0].affected[0].snapshotId, two.SnapshotId);
});

test('what was stored is damaged or gone: the next snapshot of the volume holds everything, and is whole', async (t) => {
  const server = await startTestServer(t);
  const objects = `${server.dataDir}/objects`;
  const { instanceId, volumes } = await launchInstance(server.ec2, [1]);
  const client = await server.connect(volumes[0]);
  const expected = randomBytes(8 * MIB);
  await client.write(0, expected);
  const changed = async (): Promise<void> => {
    const bytes = randomBytes(5000);
    const at = 4096 * randomInt(1000);
    await client.write(at, bytes);
    bytes.copy(expected, at);
  };
  const specification = { InstanceSpecification: { InstanceId: instanceId, ExcludeBootVolume: true } };
  const taken = async () => (await ended(server.ec2, await createSnapshots(server.ec2, instanceId, specification)))[0];
  const whole = async (): Promise<void> => {
    const { SnapshotId = '', State, StateMessage } = await taken();
    assert.equal(State, 'completed', StateMessage ?? '');
    const reader = await server.connect(SnapshotId);
    assert.ok((await reader.read(0, expected.length)).equals(expected));
    await reader.close();
  };
  await whole();
  const packs = readdirSync(`${objects}/packs`, { recursive: true, withFileTypes: true }).filter((file) =>
    file.isFile(),
  );
  for (const { parentPath, name } of packs) {
    const bytes = readFileSync(`${parentPath}/${name}`);
    bytes[bytes.length >> 1] ^= 1;
    writeFileSync(`${parentPath}/${name}`, bytes);
  }
  // Of this one, and all that follow, most is what is damaged.
  await changed();
  const { SnapshotId: damaged } = await taken();
  const verify = tool(process.execPath, [CLEANCUT, 'verify', '--json', '--data-dir', server.dataDir]);
  const report = JSON.parse(
    await verify.then(
      () => assert.fail('nothing was found'),
      (error: { stdout: string }) => error.stdout,
    ),
  );
  assert.ok(report.damage.length > 0);
  assert.deepEqual(report.storedAnew, volumes);
  await changed();
  await whole();
  await changed();
  await whole();
  await server.ec2.send(new DeleteSnapshotCommand({ SnapshotId: damaged }));

  // The whole bucket is gone. One snapshot finds that out; guests notice nothing.
  for (const name of readdirSync(objects)) if (name !== 'owner.json') rmSync(`${objects}/${name}`, { recursive: true });
  await changed();
  const { State, StateMessage } = await taken();
  assert.equal(State, 'error');
  assert.match(StateMessage ?? '', /has no object .* The next snapshot of the volume will hold everything/);
  await changed();
  await whole();
  await changed();
  await client.close();
  // As after any other: a restart, and incremental ones.
  await server.kill();
  const again = await startTestServer(t, { dataDir: server.dataDir });
  const [after] = await ended(again.ec2, await createSnapshots(again.ec2, instanceId, specification));
  const reader = await again.connect(after.SnapshotId ?? '');
  assert.ok((await reader.read(0, expected.length)).equals(expected));
  await reader.close();
});

test('the catalog is in the bucket too: users, instances and volumes come back, each volume as its newest snapshot is', async (t) => {
  const s3 = await startS3Server(t);
  const flags = ['--object-store', s3.url, '--catalog-backup-minutes', '0.02'];
  const server = await startTestServer(t, { flags, environment: s3.environment });
  const instance = await launchInstance(server.ec2, [1, 1]);
  const [kept, empty] = instance.volumes;
  const write = async (at: TestServer, volume: string, bytes: Buffer): Promise<void> => {
    const client = await at.connect(volume);
    await client.write(0, bytes);
    await client.close();
  };
  const [older, newer] = [randomBytes(MIB), randomBytes(MIB)];
  await write(server, kept, older);
  const first = await server.ec2.send(new CreateSnapshotCommand({ VolumeId: kept }));
  await ended(server.ec2, [first]);
  await server.admin.ask('create-user', { accountId: '000000000002', userName: 'ann' });
  await server.ec2.send(new CreateTagsCommand({ Resources: [kept], Tags: [{ Key: 'Name', Value: 'kept' }] }));
  const saved = (): string[] =>
    readdirSync(s3.directory, { recursive: true })
      .map(String)
      .filter((name) => /catalog.*sqlite\.zst\._S3rver_object$/.test(name));
  // A copy that was begun after all that; what follows is in the records alone.
  const before = new Set(saved());
  while (saved().filter((name) => !before.has(name)).length < 2)
    await new Promise((resolve) => setTimeout(resolve, 50));
  await write(server, kept, newer);
  const [last] = await ended(server.ec2, [await server.ec2.send(new CreateSnapshotCommand({ VolumeId: kept }))]);
  await server.ec2.send(new DeleteSnapshotCommand({ SnapshotId: first.SnapshotId }));
  await write(server, kept, randomBytes(MIB));
  await server.kill();
  rmSync(server.dataDir, { recursive: true });

  const dataDir = temporaryDirectory(t);
  const printed = await tool(
    process.execPath,
    [CLEANCUT, 'rebuild', '--object-store', s3.url, '--data-dir', dataDir, '--json'],
    s3.environment,
  );
  const rebuilt = JSON.parse(printed);
  const of = (volumeId: string) => rebuilt.volumes.find((volume: { volumeId: string }) => volume.volumeId === volumeId);
  assert.equal(of(kept).fromSnapshot, last.SnapshotId);
  assert.equal(of(empty).fromSnapshot, null);
  // A server that is killed while it copies the catalog leaves half a copy.
  const half = `${dataDir}/catalog-copy-killed`;
  mkdirSync(half);
  writeFileSync(`${half}/catalog.sqlite`, 'half');
  const again = await startTestServer(t, { dataDir, flags, environment: s3.environment });
  assert.ok(!existsSync(half));
  const [described] = (await again.ec2.send(new DescribeVolumesCommand({ VolumeIds: [kept] }))).Volumes ?? [];
  assert.deepEqual(described.Tags, [{ Key: 'Name', Value: 'kept' }]);
  assert.equal(described.Attachments?.[0].InstanceId, instance.instanceId);
  const { users } = await again.admin.ask<{ users: { userName: string }[] }>('list-users');
  assert.deepEqual(users.map((user) => user.userName).sort(), ['admin', 'ann']);
  const { Snapshots = [] } = await again.ec2.send(new DescribeSnapshotsCommand({ OwnerIds: ['self'] }));
  assert.deepEqual(
    Snapshots.map((snapshot) => [snapshot.SnapshotId, snapshot.State]),
    [[last.SnapshotId, 'completed']],
  );
  await again.ec2.send(new StartInstancesCommand({ InstanceIds: [instance.instanceId] }));
  const client = await again.connect(kept);
  assert.ok((await client.read(0, MIB)).equals(newer));
  await client.close();
  // They go on as volumes do: the next snapshot is incremental, and right.
  await write(again, empty, older);
  for (const snapshot of await ended(again.ec2, await createSnapshots(again.ec2, instance.instanceId))) {
    assert.equal(snapshot.State, 'completed', snapshot.StateMessage ?? '');
    const reader = await again.connect(snapshot.SnapshotId ?? '');
    if (snapshot.VolumeId === kept) assert.ok((await reader.read(0, MIB)).equals(newer));
    if (snapshot.VolumeId === empty) assert.ok((await reader.read(0, MIB)).equals(older));
    await reader.close();
  }
});
