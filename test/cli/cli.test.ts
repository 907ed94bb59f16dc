import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { closeSync, ftruncateSync, openSync, readdirSync, readFileSync, statSync, writeSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { DescribeInstancesCommand, EC2Client } from '@aws-sdk/client-ec2';
import type { RestoredSet } from '../../src/admin/restore-set.ts';
import { FileCleanup } from '../support/cleanup.ts';
import { createSnapshots, ended, launchInstance, type TestInstance } from '../support/instances.ts';
import { startTestServer, type TestServer } from '../support/server.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';
import { tool } from '../support/tools.ts';

const CLEANCUT = new URL('../../bin/cleancut.js', import.meta.url).pathname;
const MIB = 1024 * 1024;

let server: TestServer;
let instance: TestInstance;
let model: Buffer;
let snapshotId: string;
const file = new FileCleanup();
before(async () => {
  server = await startTestServer(file);
  instance = await launchInstance(server.ec2, [1]);
  model = Buffer.alloc(40 * MIB);
  randomBytes(3 * MIB).copy(model, 1 * MIB);
  model.fill('words and words ', 30 * MIB, 36 * MIB);
  const client = await server.connect(instance.volumes[0]);
  await client.write(0, model.subarray(0, 20 * MIB));
  await client.write(20 * MIB, model.subarray(20 * MIB));
  await client.close();
  const snapshots = await ended(server.ec2, await createSnapshots(server.ec2, instance.instanceId));
  snapshotId = snapshots.find((each) => each.VolumeId === instance.volumes[0])?.SnapshotId ?? '';
});
after(async () => {
  await server.stop();
  file.run();
});

function cleancut(...argv: string[]): Promise<string> {
  return tool(process.execPath, [CLEANCUT, ...argv]);
}

// biome-ignore lint/suspicious/noExplicitAny: whatever the CLI prints.
async function asJson(...argv: string[]): Promise<any> {
  return JSON.parse(await cleancut(...argv, '--json', '--data-dir', server.dataDir));
}

test('--help teaches every verb', async () => {
  const help = await cleancut('--help');
  for (const verb of [
    'serve',
    'demo',
    'status',
    'volumes',
    'sets',
    'restore',
    'export',
    'import',
    'inspect',
    'gc',
    'user',
  ]) {
    assert.match(help, new RegExp(`^  ${verb} `, 'm'));
    assert.match(await cleancut(verb, '--help'), /Usage: cleancut/);
  }
});

test('status, volumes and sets: tables for people, JSON for scripts', async () => {
  const status = await asJson('status');
  assert.deepEqual(status.instances, { running: 1 });
  assert.deepEqual(status.snapshots, { completed: 2 });
  assert.match(await cleancut('status', '--data-dir', server.dataDir), /instances.*1 running/);
  const { volumes } = await asJson('volumes');
  assert.deepEqual(
    new Set(volumes.map((each: { volumeId: string }) => each.volumeId)),
    new Set([instance.root, ...instance.volumes]),
  );
  assert.ok((await cleancut('volumes', '--data-dir', server.dataDir)).includes(instance.volumes[0]));
  const { sets } = await asJson('sets');
  assert.equal(sets[0].instanceId, instance.instanceId);
  assert.equal(sets[0].state, 'completed');
  assert.ok(sets[0].holdMilliseconds > 0);
  assert.ok((await cleancut('sets', '--data-dir', server.dataDir)).includes(sets[0].setId));
});

test('export writes what the volume was, with holes; import makes a snapshot of it with the same bytes', async (t) => {
  const file = `${temporaryDirectory(t)}/image`;
  const report = await asJson('export', snapshotId, file);
  assert.equal(report.sizeBytes, 1024 * MIB);
  const stat = statSync(file);
  assert.equal(stat.size, 1024 * MIB);
  assert.ok(stat.blocks * 512 < 20 * MIB, 'sparse');
  const exported = readFileSync(file);
  assert.ok(exported.subarray(0, model.length).equals(model));
  const imported = await asJson('import', file, '--description', 'back again');
  const [snapshot] = await ended(server.ec2, [{ SnapshotId: imported.snapshotId }]);
  assert.equal(snapshot.State, 'completed');
  assert.equal(snapshot.Description, 'back again');
  assert.equal(snapshot.VolumeSize, 1);
  const reader = await server.connect(imported.snapshotId);
  assert.ok((await reader.read(0, 30 * MIB)).equals(model.subarray(0, 30 * MIB)));
  await reader.close();
});

test('a file that is no whole number of blocks, or of GiB, is imported whole', async (t) => {
  const file = `${temporaryDirectory(t)}/odd`;
  const handle = openSync(file, 'w');
  const tail = randomBytes(1234);
  ftruncateSync(handle, 700_000);
  writeSync(handle, tail, 0, tail.length, 700_000);
  closeSync(handle);
  const imported = await asJson('import', file);
  const reader = await server.connect(imported.snapshotId);
  assert.equal(reader.sizeBytes, 1024 * MIB);
  assert.ok((await reader.read(700_000, 1234)).equals(tail));
  assert.ok((await reader.read(701_234, 4096)).equals(Buffer.alloc(4096)));
  await reader.close();
});

test('restore makes a new instance with the whole set attached as it was', async () => {
  const { sets } = await asJson('sets');
  const restored: RestoredSet = await asJson('restore', sets[0].setId, '--zone', 'us-east-1c');
  const answer = await server.ec2.send(new DescribeInstancesCommand({ InstanceIds: [restored.instanceId] }));
  const made = answer.Reservations?.[0].Instances?.[0];
  assert.equal(made?.State?.Name, 'running');
  assert.equal(made?.Placement?.AvailabilityZone, 'us-east-1c');
  assert.deepEqual(
    made?.BlockDeviceMappings?.map((mapping) => mapping.DeviceName),
    ['/dev/sdf', '/dev/xvda'],
  );
  const copy = restored.volumes.find((volume) => volume.snapshotId === snapshotId)?.volumeId ?? '';
  const client = await server.connect(copy);
  const bytes = Buffer.concat([await client.read(0, 20 * MIB), await client.read(20 * MIB, 20 * MIB)]);
  assert.equal(createHash('sha256').update(bytes).digest('hex'), createHash('sha256').update(model).digest('hex'));
  await client.close();
});

test('inspect says what stands in a record, a manifest node, a pack and a bitmap', async () => {
  const record = await asJson('inspect', snapshotId);
  assert.equal(record.snapshotId, snapshotId);
  assert.equal(record.dataBlocks, 6 + 12);
  const root = await asJson('inspect', record.root);
  assert.equal(root.kind, 'branch');
  const branch = await asJson('inspect', root.children[0].node);
  const leaf = await asJson('inspect', branch.children[0].node);
  assert.equal(leaf.blocks.length, 18);
  const pack = await asJson('inspect', leaf.blocks[0].pack);
  assert.equal(pack.blocks[0].sha256, leaf.blocks[0].sha256);
  const directory = `${server.dataDir}/volumes/${instance.volumes[0]}`;
  const bitmap = readdirSync(directory).find((name) => name.endsWith('.dirty')) ?? '';
  assert.equal((await asJson('inspect', `${directory}/${bitmap}`)).bits, 2048);
  assert.match(await cleancut('inspect', `${directory}/${bitmap}`), /first block/);
});

test('gc says what it would free, and frees it; user create makes a key that works', async () => {
  const shown = await asJson('gc', '--dry-run');
  assert.equal(shown.removed, false);
  assert.equal((await asJson('gc')).removed, true);
  assert.match(await cleancut('gc', '--dry-run', '--data-dir', server.dataDir), /would be removed/);
  const user = await asJson('user', 'create', 'carol', '--account', '000000000003');
  const credentials = { accessKeyId: user.accessKeyId, secretAccessKey: user.secretAccessKey };
  const client = new EC2Client({ region: 'us-east-1', endpoint: server.apiUrl, credentials });
  assert.deepEqual((await client.send(new DescribeInstancesCommand({}))).Reservations, []);
  client.destroy();
  await assert.rejects(asJson('user', 'create', 'carol', '--account', '000000000003'), /has a user 'carol' already/);
});

test('failures: one line on stderr that says what to do, exit code 1', async (t) => {
  const nowhere = temporaryDirectory(t);
  const cases: [string[], RegExp][] = [
    [['status', '--data-dir', nowhere], /no server is running on .*cleancut serve/],
    [['restore', 'set-0123456789abcdef0', '--data-dir', server.dataDir], /InvalidSet.NotFound/],
    [['restore', 'nonsense', '--data-dir', server.dataDir], /InvalidSetID.Malformed/],
    [
      ['export', 'snap-0123456789abcdef0', `${nowhere}/x`, '--data-dir', server.dataDir],
      /has no completed snapshot 'snap-0123456789abcdef0'/,
    ],
    [['export', snapshotId, CLEANCUT, '--data-dir', server.dataDir], /never writes over a file/],
    [['import', `${nowhere}/none`, '--data-dir', server.dataDir], /ENOENT/],
    [['inspect', 'nonsense', '--data-dir', server.dataDir], /is neither a file/],
    [['serve', '--port', 'many'], /port/],
    [['serve', '--host', '0.0.0.0', '--data-dir', nowhere], /loopback/],
    [['serve', '--object-store', 'ftp://x', '--data-dir', nowhere], /s3:\/\/BUCKET/],
  ];
  for (const [argv, message] of cases) {
    await assert.rejects(cleancut(...argv), (error: { code: number; stderr: string }) => {
      assert.equal(error.code, 1, argv.join(' '));
      assert.match(error.stderr, message);
      return true;
    });
  }
});

test('settings come from flags, the environment and a config file, in that order', async (t) => {
  const { readConfig } = await import('../../src/server/config.ts');
  const directory = temporaryDirectory(t);
  const environment = { CLEANCUT_PORT: '2000', CLEANCUT_NBD_PORT: '2001', CLEANCUT_DATA_DIR: directory };
  const config = readConfig({ port: '1000' }, environment, { port: 3000, nbdPort: 3001, region: 'eu-west-1' });
  assert.deepEqual([config.port, config.nbdPort, config.region, config.dataDir], [1000, 2001, 'eu-west-1', directory]);
  assert.deepEqual([...config.regions], [['eu-west-1', ['eu-west-1a', 'eu-west-1b', 'eu-west-1c']]]);
  assert.equal(config.objectStore, `file://${directory}/objects`);
  assert.throws(() => readConfig({}, {}, { prot: 1 }), /prot/);
});

test('the demo does the main job and proves it', async () => {
  const out = await cleancut('demo');
  assert.match(out, /0 violations/);
  assert.match(out, /bit-identical/);
  assert.match(out, /^Done in/m);
});
