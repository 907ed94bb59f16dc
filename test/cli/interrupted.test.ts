import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { DeleteSnapshotCommand, DescribeSnapshotsCommand, type EC2Client, type Snapshot } from '@aws-sdk/client-ec2';
import { createSnapshots, ended, launchInstance } from '../support/instances.ts';
import { startProxiedServer } from '../support/proxied-server.ts';
import { startTestServer } from '../support/server.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';

const CLEANCUT = new URL('../../bin/cleancut.js', import.meta.url).pathname;
const MIB = 1024 * 1024;

async function until(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  for (let tries = 0; !(await holds()); tries += 1) {
    assert.ok(tries < 1500, `in vain: ${what}`);
    await sleep(20);
  }
}

/** A server, its store that can fall silent, and the CLI beside them. */
async function withSilenceableStore(t: TestContext) {
  const { s3, proxy, server, options } = await startProxiedServer(t);
  const run = (...argv: string[]): ChildProcess => {
    const child = spawn(process.execPath, [CLEANCUT, ...argv, '--data-dir', server.dataDir], {
      stdio: 'ignore',
      env: { ...process.env, ...s3.environment },
    });
    t.after(() => child.kill('SIGKILL'));
    return child;
  };
  return { proxy, server, run, options };
}

/** Ctrl-C. @returns how it ended */
async function interrupt(child: ChildProcess): Promise<NodeJS.Signals | null> {
  const exit = once(child, 'exit');
  // Twice: a terminal sends it to the whole group, and npm, or another Node before this one, passes it on.
  child.kill('SIGINT');
  await sleep(100);
  child.kill('SIGINT');
  const [, signal] = await exit;
  return signal;
}

async function ownSnapshots(ec2: EC2Client): Promise<Snapshot[]> {
  return (await ec2.send(new DescribeSnapshotsCommand({ OwnerIds: ['self'] }))).Snapshots ?? [];
}

test('Ctrl-C in an export, beside a store that has fallen silent: it ends, and no half image stays', async (t) => {
  const { proxy, server, run } = await withSilenceableStore(t);
  const instance = await launchInstance(server.ec2, [1]);
  const client = await server.connect(instance.volumes[0]);
  for (let at = 0; at < 40; at += 4) await client.write(at * MIB, randomBytes(4 * MIB));
  await client.close();
  const snapshots = await ended(server.ec2, await createSnapshots(server.ec2, instance.instanceId));
  const id = snapshots.find(({ VolumeId }) => VolumeId === instance.volumes[0])?.SnapshotId ?? '';
  const directory = temporaryDirectory(t);
  let reads = 0;
  proxy.chooseFault = (_method, path) => {
    if (path.includes('/packs/')) reads += 1;
    return reads > 4 ? 'no answer' : undefined;
  };
  const child = run('export', id, `${directory}/image`);
  await until('the store is asked for packs', () => reads > 4);
  assert.deepEqual(readdirSync(directory), ['image.partial']);
  assert.equal(await interrupt(child), 'SIGINT');
  assert.deepEqual(readdirSync(directory), []);

  // One that was killed leaves what nobody takes for an image, and the next says so.
  writeFileSync(`${directory}/image.partial`, 'half');
  const next = run('export', id, `${directory}/image`);
  const [code] = await once(next, 'exit');
  assert.equal(code, 1);
  assert.deepEqual(readdirSync(directory), ['image.partial']);
});

test('Ctrl-C in an import ends its snapshot in error at once', async (t) => {
  const { proxy, server, run } = await withSilenceableStore(t);
  const image = `${temporaryDirectory(t)}/image`;
  writeFileSync(image, randomBytes(20 * MIB));
  let puts = 0;
  proxy.chooseFault = (method, path) => {
    if (method !== 'PUT' || !path.includes('/packs/')) return undefined;
    puts += 1;
    return 'no answer';
  };
  const child = run('import', image);
  await until('a pack is put', () => puts > 0);
  assert.equal(await interrupt(child), 'SIGINT');
  const snapshots = await ownSnapshots(server.ec2);
  assert.deepEqual(
    snapshots.map(({ State }) => State),
    ['error'],
  );
  assert.match(snapshots[0].StateMessage ?? '', /SIGINT/);
});

/** An import whose packs the store does not take yet. */
async function importThatIsHeld(t: TestContext) {
  const { proxy, server, run, options } = await withSilenceableStore(t);
  const image = `${temporaryDirectory(t)}/image`;
  const bytes = randomBytes(20 * MIB);
  writeFileSync(image, bytes);
  let [isHeld, puts, manifests] = [true, 0, 0];
  proxy.chooseFault = (method, path) => {
    if (method === 'PUT' && path.includes('/manifests/')) manifests += 1;
    if (!isHeld || method !== 'PUT' || !path.includes('/packs/')) return undefined;
    puts += 1;
    return 'throttled';
  };
  const exit = once(run('import', image), 'exit');
  await until('a pack is put', () => puts > 0);
  const release = (): void => {
    isHeld = false;
  };
  return { server, options, bytes, exit, release, manifests: () => manifests };
}

test('an import goes on while its server is away, and ends when there is one again', async (t) => {
  const { server, options, bytes, exit, release, manifests } = await importThatIsHeld(t);
  await server.kill();
  const before = manifests();
  release();
  await until('what it is made of is stored', () => manifests() > before);
  const next = await startTestServer(t, { ...options, dataDir: server.dataDir });
  assert.deepEqual(await exit, [0, null]);
  const [snapshot, ...others] = await ownSnapshots(next.ec2);
  assert.deepEqual([snapshot.State, others], ['completed', []]);
  const reader = await next.connect(snapshot.SnapshotId ?? '');
  assert.ok((await reader.read(0, bytes.length)).equals(bytes));
  await reader.close();
});

test('an import whose snapshot is deleted meanwhile ends', async (t) => {
  const { server, exit, release } = await importThatIsHeld(t);
  const [{ SnapshotId }] = await ownSnapshots(server.ec2);
  await server.ec2.send(new DeleteSnapshotCommand({ SnapshotId }));
  release();
  assert.deepEqual(await exit, [1, null]);
  assert.deepEqual(await ownSnapshots(server.ec2), []);
});

test('a demo that is told to end takes its server and its data with it', async (t) => {
  const tmp = temporaryDirectory(t);
  mkdirSync(`${tmp}/tmp`);
  const child = spawn(process.execPath, [CLEANCUT, 'demo'], {
    stdio: 'ignore',
    env: { ...process.env, TMPDIR: `${tmp}/tmp` },
  });
  t.after(() => child.kill('SIGKILL'));
  const dataDir = (): string => `${tmp}/tmp/${readdirSync(`${tmp}/tmp`).find((name) => name.includes('demo')) ?? ''}`;
  await until('its server runs', () => existsSync(`${dataDir()}/running.json`));
  const exit = once(child, 'exit');
  child.kill('SIGTERM');
  const [, signal] = await exit;
  assert.equal(signal, 'SIGTERM');
  assert.deepEqual(
    readdirSync(`${tmp}/tmp`).filter((name) => name.includes('demo')),
    [],
  );
});
