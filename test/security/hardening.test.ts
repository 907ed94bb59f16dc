import assert from 'node:assert/strict';
import { existsSync, readFileSync, renameSync, statSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { test } from 'node:test';
import { CreateVolumeCommand, DescribeVolumesCommand, RunInstancesCommand } from '@aws-sdk/client-ec2';
import type { NewUser } from '../../src/admin/users.ts';
import { EMPTY_IMAGE, launchInstance } from '../support/instances.ts';
import { readCredentials, startTestServer, type TestServer } from '../support/server.ts';
import { form, type Request, send, sign } from '../support/signed-request.ts';

async function ask(server: TestServer, request: Request): Promise<{ status: number; code: string }> {
  return send(server.apiUrl, await sign(server.apiUrl, request, { credentials: readCredentials(server.dataDir) }));
}

function open(server: TestServer, from: string, first = ''): Promise<Socket> {
  const socket = connect({ host: '127.0.0.1', port: Number(new URL(server.apiUrl).port), localAddress: from });
  socket.on('error', () => undefined);
  if (first !== '') socket.write(first);
  return new Promise((resolve) => socket.once('connect', () => resolve(socket)));
}

const closed = (socket: Socket): Promise<string> =>
  new Promise((resolve) => {
    let text = '';
    socket.on('data', (data) => {
      text += data.toString();
    });
    socket.on('close', () => resolve(text));
  });

test('every size and count has its end: bodies, headers, members, depth', async (t) => {
  const server = await startTestServer(t);
  const large = await ask(server, { ...form('DescribeVolumes'), body: 'x'.repeat(1024 * 1024 + 1) });
  assert.deepEqual([large.status, large.code], [413, 'RequestEntityTooLarge']);
  const members = Object.fromEntries(Array.from({ length: 10_001 }, (_, index) => [`VolumeId.${index + 1}`, 'vol-1']));
  assert.equal((await ask(server, form('DescribeVolumes', members))).code, 'InvalidParameterValue');
  assert.equal(
    (await ask(server, form('DescribeVolumes', { [`${'Filter.1.'.repeat(10)}Name`]: 'x' }))).code,
    'UnknownParameter',
  );
  assert.equal((await ask(server, form('DescribeVolumes', { 'VolumeId.9999999': 'x' }))).code, 'UnknownParameter');
  const headers = await open(server, '127.0.0.1', `GET / HTTP/1.1\r\nHost: x\r\nX: ${'y'.repeat(20_000)}\r\n\r\n`);
  assert.match(await closed(headers), /^HTTP\/1\.1 431/);
  for (const garbage of ['\0'.repeat(100), 'GET\r\n\r\n', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n']) {
    const socket = await open(server, '127.0.0.1', garbage);
    assert.match(await closed(socket), /^HTTP\/1\.1 400/);
  }
  // A length that is not kept: the client is waited for, and no one else waits with it.
  const liar = await open(server, '127.0.0.1', 'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nx');
  assert.deepEqual((await server.ec2.send(new DescribeVolumesCommand({}))).Volumes, []);
  liar.destroy();
});

test('one client cannot take all connections: past its share it is turned away, others are not', async (t) => {
  const server = await startTestServer(t, { flags: ['--connections-per-client', '5'] });
  const slow = await Promise.all(Array.from({ length: 5 }, () => open(server, '127.0.0.2', 'POST / HT')));
  const more = await open(server, '127.0.0.2');
  assert.equal(await closed(more), '');
  assert.ok(slow.every((socket) => !socket.destroyed));
  assert.deepEqual((await server.ec2.send(new DescribeVolumesCommand({}))).Volumes, []);
  // And when it has let go of one it may come again.
  slow[0].destroy();
  for (;;) {
    const again = await open(server, '127.0.0.2', 'GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n');
    if ((await closed(again)).startsWith('HTTP/1.1 200')) break;
  }
  for (const socket of slow) socket.destroy();
});

test('what the server keeps is for its own user alone', async (t) => {
  const server = await startTestServer(t);
  await server.ec2.send(new CreateVolumeCommand({ AvailabilityZone: 'us-east-1a', Size: 1, Encrypted: true }));
  const mode = (name: string): string => (statSync(`${server.dataDir}/${name}`).mode & 0o777).toString(8);
  for (const name of ['credentials', 'nbd.sock', 'keyring.json', 'keyring.key', 'running.json', 'audit.log']) {
    assert.equal(mode(name), '600', name);
  }
  for (const name of ['volumes', '.']) assert.equal(mode(name), '700', name);
});

type AuditRecord = {
  eventName: string;
  eventSource: string;
  errorCode?: string;
  userIdentity: { type: string; userName: string; accountId?: string };
  requestParameters: Record<string, string>;
  sourceIPAddress: string;
  readOnly: boolean;
};

function audited(path: string): AuditRecord[] {
  return readFileSync(path, 'utf8')
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as AuditRecord);
}

test('the audit log: who did what from where and how it ended, and nothing that must not be kept', async (t) => {
  const server = await startTestServer(t);
  const path = `${server.dataDir}/audit.log`;
  const user = await server.admin.ask<NewUser>('create-user', { accountId: '000000000001', userName: 'ann' });
  await server.ec2.send(
    new RunInstancesCommand({ ImageId: EMPTY_IMAGE, MinCount: 1, MaxCount: 1, UserData: 'cGFzc3dvcmQ=' }),
  );
  await send(server.apiUrl, await sign(server.apiUrl, form('DescribeVolumes'), { credentials: user }));
  await send(
    server.apiUrl,
    await sign(server.apiUrl, form('DescribeVolumes'), { credentials: { ...user, secretAccessKey: 'x' } }),
  );
  const session = await send(
    server.apiUrl,
    await sign(server.apiUrl, form('GetSessionToken', {}, '2011-06-15'), { credentials: user, service: 'sts' }),
  );
  const { root } = await launchInstance(server.ec2, []);
  const client = await server.connect(root);
  await client.close();
  await assert.rejects(server.connect('vol-0123456789abcdef0'));
  await server.stop();
  const records = audited(path);
  const of = (name: string): AuditRecord[] => records.filter((record) => record.eventName === name);
  const [run] = of('RunInstances');
  assert.equal(run.userIdentity.userName, 'admin');
  assert.equal(run.eventSource, 'ec2.amazonaws.com');
  assert.equal(run.requestParameters.ImageId, EMPTY_IMAGE);
  assert.equal(run.requestParameters.UserData, 'HIDDEN_DUE_TO_SECURITY_REASONS');
  assert.equal(run.readOnly, false);
  const [ann, stranger] = of('DescribeVolumes');
  assert.deepEqual(
    [ann.userIdentity.userName, ann.sourceIPAddress, ann.errorCode, ann.readOnly],
    ['ann', '127.0.0.1', undefined, true],
  );
  assert.deepEqual([stranger.userIdentity.type, stranger.errorCode], ['Unknown', 'AuthFailure']);
  assert.ok(of('POST /cleancut/create-user').length === 1 && of('GetSessionToken').length === 1);
  const [opened, refused, ...more] = of('OpenExport');
  assert.equal(opened.requestParameters.exportName, root);
  assert.deepEqual(
    [refused.requestParameters.exportName, refused.errorCode],
    ['vol-0123456789abcdef0', 'AccessDenied'],
  );
  assert.deepEqual(more, []);
  const text = readFileSync(path, 'utf8');
  const secret = /<SecretAccessKey>([^<]+)</.exec(session.body)?.[1] ?? 'none';
  for (const each of [user.secretAccessKey, secret, readCredentials(server.dataDir).secretAccessKey, 'cGFzc3dvcmQ']) {
    assert.ok(!text.includes(each));
  }
});

test('the audit log only grows; a SIGHUP after it was moved away begins a new one', async (t) => {
  const server = await startTestServer(t);
  const path = `${server.dataDir}/audit.log`;
  const until = async (holds: () => boolean): Promise<void> => {
    while (!holds()) await new Promise((resolve) => setTimeout(resolve, 20));
  };
  await server.ec2.send(new DescribeVolumesCommand({}));
  await until(() => audited(path).length === 1);
  renameSync(path, `${path}.1`);
  server.process.kill('SIGHUP');
  await until(() => existsSync(path));
  await server.ec2.send(new DescribeVolumesCommand({}));
  await until(() => audited(path).length === 1);
  assert.equal(audited(`${path}.1`).length, 1);
  await server.stop();
  const again = await startTestServer(t, { dataDir: server.dataDir });
  await again.ec2.send(new DescribeVolumesCommand({}));
  await until(() => audited(path).length === 2);
});
