import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { after, before, test } from 'node:test';
import { FileCleanup } from '../support/cleanup.ts';
import { createSnapshots, ended, launchInstance, type TestInstance } from '../support/instances.ts';
import { mountExport } from '../support/mounted-volume.ts';
import { startTestServer, type TestServer } from '../support/server.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';
import { tool, without, withoutMounts } from '../support/tools.ts';

// NBD clients that no one here wrote, all against one server.
const NBDINFO = without('nbdinfo', 'nbdcopy');
const QEMU = without('qemu-img', 'qemu-io');
const FIO = without('fio');
const MOUNT = withoutMounts('nbdfuse', 'losetup', 'mkfs.ext4', 'mount');

let server: TestServer;
let instance: TestInstance;
const file = new FileCleanup();
before(async () => {
  server = await startTestServer(file);
  instance = await launchInstance(server.ec2, [1, 1, 1, 1]);
});
after(async () => {
  await server.stop();
  file.run();
});

function uri(name: string): string {
  return `nbd+unix:///${name}?socket=${server.nbdSocket}`;
}

/** Whether the kernel will ask for the peer of a connection to this port when it is idle (proc(5): timer 2). */
function isKeptAlive(serverPort: number): boolean {
  const port = serverPort.toString(16).toUpperCase().padStart(4, '0');
  const lines = readFileSync('/proc/net/tcp', 'utf8').trim().split('\n').slice(1);
  const timers = lines
    .map((line) => line.trim().split(/\s+/))
    .filter(([, local, , state]) => local.endsWith(`:${port}`) && state === '01');
  assert.equal(timers.length, 1, 'one connection');
  return timers[0][5].startsWith('02:');
}

test('a client over TCP is asked for when it says nothing: it may be gone', {
  skip: process.platform !== 'linux' && 'needs Linux',
}, async () => {
  const socket = connect(server.nbdPort, '127.0.0.1');
  // The greeting: the connection is up on both sides.
  await once(socket, 'data');
  assert.ok(isKeptAlive(server.nbdPort));
  socket.destroy();
});

test('nbdinfo lists the exports and sees what each can do', { skip: NBDINFO }, async () => {
  const list = await tool('nbdinfo', ['--list', '--json', `nbd+unix:///?socket=${server.nbdSocket}`]);
  const names = (JSON.parse(list) as { exports: { 'export-name': string }[] }).exports.map(
    (each) => each['export-name'],
  );
  assert.deepEqual(names.sort(), [instance.root, ...instance.volumes].sort());
  const info = JSON.parse(await tool('nbdinfo', ['--json', uri(instance.volumes[0])])) as {
    exports: Record<string, unknown>[];
  };
  const [facts] = info.exports;
  assert.equal(facts['export-size'], 1024 ** 3);
  for (const flag of ['can_flush', 'can_fua', 'can_trim', 'can_zero', 'can_multi_conn', 'can_df', 'can_cache']) {
    assert.equal(facts[flag], true, flag);
  }
  assert.equal(facts.is_read_only, false);
});

test('TCP on loopback gives the same exports', { skip: NBDINFO }, async () => {
  const size = await tool('nbdinfo', ['--size', `nbd://127.0.0.1:${server.nbdPort}/${instance.volumes[0]}`]);
  assert.equal(Number(size), 1024 ** 3);
});

test('nbdcopy there and back: bit-identical, and holes stay holes', { skip: NBDINFO }, async (t) => {
  const directory = temporaryDirectory(t);
  const bytes = randomBytes(20 * 1024 * 1024);
  writeFileSync(`${directory}/in`, bytes);
  await tool('truncate', ['-s', '1G', `${directory}/in`]);
  await tool('nbdcopy', ['--flush', `${directory}/in`, uri(instance.volumes[0])]);
  await tool('nbdcopy', [uri(instance.volumes[0]), `${directory}/out`]);
  await tool('cmp', [`${directory}/in`, `${directory}/out`]);
  const map = await tool('nbdinfo', ['--map', '--totals', uri(instance.volumes[0])]);
  assert.match(map, /^\s*20971520\s+2\.0%\s+0\s+data/m);
});

test('qemu-img converts and compares; qemu-io writes, discards, zeroes and reads back', { skip: QEMU }, async (t) => {
  const directory = temporaryDirectory(t);
  writeFileSync(`${directory}/in`, randomBytes(8 * 1024 * 1024));
  await tool('truncate', ['-s', '1G', `${directory}/in`]);
  const target = uri(instance.volumes[1]);
  await tool('qemu-img', ['convert', '-n', '-f', 'raw', '-O', 'raw', `${directory}/in`, target]);
  await tool('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', `${directory}/in`, target]);
  const commands = [
    'write -P 0xab 1M 2M',
    'read -P 0xab 1M 2M',
    'write -z 1536k 64k',
    'read -P 0 1536k 64k',
    'discard 2M 512k',
    'write -f -P 0xcd 999 4097',
    'read -P 0xcd 999 4097',
    'flush',
  ];
  const out = await tool('qemu-io', ['-f', 'raw', ...commands.flatMap((command) => ['-c', command]), target]);
  assert.doesNotMatch(out, /verification failed/i);
});

test('fio writes at random and verifies what it wrote', { skip: FIO }, async () => {
  const out = await tool('fio', [
    '--name=verify',
    '--ioengine=nbd',
    `--uri=${uri(instance.volumes[2])}`,
    '--rw=randrw',
    '--bsrange=512-64k',
    '--size=64m',
    '--io_size=96m',
    '--iodepth=16',
    '--verify=crc32c',
    '--do_verify=1',
    '--verify_fatal=1',
    '--fsync=64',
    '--output-format=json',
  ]);
  const report = JSON.parse(out.slice(out.indexOf('{'))) as { jobs: { error: number; write: { io_bytes: number } }[] };
  assert.equal(report.jobs[0].error, 0);
  assert.ok(report.jobs[0].write.io_bytes > 0);
});

test('a completed snapshot is an export too: read-only, straight from the object store', {
  skip: NBDINFO || QEMU,
}, async (t) => {
  const directory = temporaryDirectory(t);
  await tool('nbdcopy', [uri(instance.volumes[0]), `${directory}/volume`]);
  const snapshots = await ended(server.ec2, await createSnapshots(server.ec2, instance.instanceId));
  const snapshot = snapshots.find((each) => each.VolumeId === instance.volumes[0])?.SnapshotId ?? '';
  // The volume moves on; the snapshot does not.
  await tool('qemu-io', ['-f', 'raw', '-c', 'write -P 0x11 0 4M', uri(instance.volumes[0])]);
  await tool('nbdcopy', [uri(snapshot), `${directory}/snapshot`]);
  await tool('cmp', [`${directory}/volume`, `${directory}/snapshot`]);
  assert.match(await tool('nbdinfo', [uri(snapshot)]), /is_read_only: true/);
  const client = await server.connect(snapshot);
  await assert.rejects(client.write(0, Buffer.alloc(512)), { number: 1 });
  await client.close();
});

test('a real ext4, through nbdfuse and a loop device, survives a snapshot and a restore', {
  skip: MOUNT,
}, async (t) => {
  const directory = temporaryDirectory(t);
  const volume = instance.volumes[3];
  const first = await mountExport(directory, 'first', uri(volume), true);
  const content = randomBytes(3_000_000);
  writeFileSync(`${first.path}/file`, content);
  mkdirSync(`${first.path}/deep/er`, { recursive: true });
  writeFileSync(`${first.path}/deep/er/note`, 'a note');
  await tool('sync', ['-f', first.path]);
  const snapshots = await ended(server.ec2, await createSnapshots(server.ec2, instance.instanceId));
  writeFileSync(`${first.path}/file`, 'overwritten after the cut');
  await first.unmount();

  const snapshot = snapshots.find((each) => each.VolumeId === volume)?.SnapshotId ?? '';
  await tool('nbdcopy', [uri(snapshot), `${directory}/image`]);
  await tool('e2fsck', ['-f', '-y', `${directory}/image`]).catch((error: { code: number; stdout: string }) => {
    // 1 says that the journal was replayed or small things were set right, as after any crash.
    if (error.code !== 1) throw error;
  });
  mkdirSync(`${directory}/restored`);
  await tool('mount', ['-o', 'loop,ro', `${directory}/image`, `${directory}/restored`]);
  try {
    assert.ok(readFileSync(`${directory}/restored/file`).equals(content));
    assert.equal(readFileSync(`${directory}/restored/deep/er/note`, 'utf8'), 'a note');
  } finally {
    await tool('umount', [`${directory}/restored`]);
  }
});
