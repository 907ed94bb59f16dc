import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { DatabaseSync } from 'node:sqlite';
import { test } from 'node:test';
import {
  DescribeImagesCommand,
  DescribeInstancesCommand,
  DescribeVolumesCommand,
  EC2Client,
} from '@aws-sdk/client-ec2';
import type { NewUser } from '../../src/admin/users.ts';
import { createSnapshots, EMPTY_IMAGE, launchInstance } from '../support/instances.ts';
import { readCredentials, startTestServer, type TestServer } from '../support/server.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';

test('a server whose port is taken ends, says which and what to do, and leaves all as it was', async (t) => {
  const other = createServer();
  await new Promise<void>((resolve) => other.listen(0, '127.0.0.1', resolve));
  t.after(() => other.close());
  const address = other.address();
  const taken = typeof address === 'object' ? String(address?.port) : assert.fail();
  const before = await startTestServer(t);
  const { dataDir } = before;
  const { instanceId, volumes } = await launchInstance(before.ec2, [1]);
  await createSnapshots(before.ec2, instanceId);
  // What was pending is taken up by the next start, which must not be kept alive by it.
  await before.kill();
  const start = (...flags: string[]) => startTestServer(t, { dataDir, flags });
  await assert.rejects(start('--port', taken), /ended with 1 .*the API cannot listen on .*another --port/s);
  await assert.rejects(start('--nbd-port', taken), /ended with 1 .*NBD cannot listen on .*another --nbd-port/s);
  const server = await start();
  const client = await server.connect(volumes[0]);
  await client.close();
  assert.equal(await server.stop(), 0);
});

test('a data directory whose path is too long for a socket is refused before anything is made, and a link to it is not', async (t) => {
  const root = temporaryDirectory(t);
  const dataDir = `${root}/${'long/'.repeat(20)}data`;
  await assert.rejects(startTestServer(t, { dataDir }), /ended with 1 .*shorter --data-dir/s);
  assert.ok(!existsSync(dataDir));
  mkdirSync(dataDir, { recursive: true });
  symlinkSync(dataDir, `${root}/data`);
  const server = await startTestServer(t, { dataDir: `${root}/data` });
  const { volumes } = await launchInstance(server.ec2, [1]);
  const client = await server.connect(volumes[0]);
  await client.close();
});

test('the address of a server that listens on IPv6 can be used as it is printed', async (t) => {
  const server = await startTestServer(t, { flags: ['--host', '::1'] }).catch((error: Error) => {
    // A machine without IPv6.
    if (!/EADDRNOTAVAIL|EAFNOSUPPORT/.test(error.message)) throw error;
    t.skip('needs IPv6 on the loopback');
  });
  if (server === undefined) return;
  assert.match(server.apiUrl, /^http:\/\/\[::1\]:\d+$/);
  assert.deepEqual((await server.ec2.send(new DescribeVolumesCommand({}))).Volumes, []);
});

test('without the key file that users’ secrets were sealed under a server does not start, and says what to do where it is lost', async (t) => {
  const first = await startTestServer(t);
  const { dataDir } = first;
  await first.admin.ask<NewUser>('create-user', { accountId: '000000000002', userName: 'bob' });
  assert.equal(await first.stop(), 0);
  const keyFile = `${dataDir}/keyring.key`;
  const secret = readFileSync(keyFile);
  rmSync(keyFile);
  const refused = /ended with 1 .*sealed under another key file .*move \S+credentials away/s;
  await assert.rejects(startTestServer(t, { dataDir }), refused);
  await assert.rejects(
    startTestServer(t, { dataDir, environment: { CLEANCUT_KEY_PASSPHRASE: 'words and words' } }),
    refused,
  );
  writeFileSync(keyFile, secret, { mode: 0o600 });
  const again = await startTestServer(t, { dataDir });
  assert.deepEqual((await again.ec2.send(new DescribeVolumesCommand({}))).Volumes, []);
  assert.doesNotMatch(again.log(), /of no use/);
  assert.equal(await again.stop(), 0);
  rmSync(keyFile);
  rmSync(`${dataDir}/credentials`);
  const anew = await startTestServer(t, { dataDir });
  assert.deepEqual((await anew.ec2.send(new DescribeVolumesCommand({}))).Volumes, []);
  assert.match(anew.log(), /of no use; 'cleancut user rotate' them: bob of 000000000002"/);
});

test('a catalog that is none, or is from a later version, is named, with what to do', async (t) => {
  const [broken, later] = [temporaryDirectory(t), temporaryDirectory(t)];
  writeFileSync(`${broken}/catalog.sqlite`, 'this is no database, but a text that is long enough for one');
  await assert.rejects(
    startTestServer(t, { dataDir: broken }),
    /catalog\.sqlite cannot be opened: .*not a database.*cleancut rebuild/s,
  );
  const server = await startTestServer(t, { dataDir: later });
  await server.stop();
  const catalog = new DatabaseSync(`${later}/catalog.sqlite`);
  catalog.exec("insert into kysely_migration values ('9999-of-later', '2030-01-01T00:00:00Z')");
  catalog.close();
  await assert.rejects(startTestServer(t, { dataDir: later }), /from a newer version .*9999-of-later/s);
});

const WRONG_FILES: [string, RegExp, string[]][] = [
  ['a certificate that is not there', /--tls-cert and --tls-key: ENOENT/, ['--tls-cert', '/c', '--tls-key', '/k']],
  [
    'an NBD certificate that is not there',
    /--nbd-tls-ca: ENOENT/,
    ['cert', 'key', 'ca'].flatMap((each) => [`--nbd-tls-${each}`, '/f']),
  ],
  ['shared keys that are not there', /--nbd-psk-file: ENOENT/, ['--nbd-psk-file', '/f']],
  ['an audit log that cannot be made', /--audit-log/, ['--audit-log', '/nowhere/audit.log']],
  ['a key file that is not there', /--key-file/, ['--key-file', '/nowhere/key']],
  ['an object store without a path', /file:\/\/\/PATH/, ['--object-store', 'file://objects/here']],
];
for (const [what, message, flags] of WRONG_FILES) {
  test(`${what} is named by the setting that names it`, async (t) => {
    await assert.rejects(startTestServer(t, { flags }), message);
  });
}

test('a server that has another region by now has an image there, and says what is out of reach', async (t) => {
  const first = await startTestServer(t);
  const { dataDir } = first;
  const { instanceId } = await launchInstance(first.ec2, []);
  await first.stop();
  const imagesIn = async (server: TestServer, region: string): Promise<(string | undefined)[]> => {
    const credentials = readCredentials(dataDir);
    const ec2 = new EC2Client({ region, endpoint: server.apiUrl, credentials, maxAttempts: 1 });
    t.after(() => ec2.destroy());
    const { Images = [] } = await ec2.send(new DescribeImagesCommand({}));
    return Images.map((image) => image.ImageId);
  };
  const moved = await startTestServer(t, { dataDir, flags: ['--region', 'eu-west-1'] });
  assert.match(moved.log(), /what is in us-east-1 is there.*--more-regions us-east-1/);
  assert.deepEqual(await imagesIn(moved, 'eu-west-1'), ['ami-00000000000000002']);
  await moved.stop();
  const both = await startTestServer(t, { dataDir, flags: ['--region', 'eu-west-1', '--more-regions', 'us-east-1'] });
  assert.doesNotMatch(both.log(), /cannot be asked for/);
  assert.deepEqual(await imagesIn(both, 'eu-west-1'), ['ami-00000000000000002']);
  assert.deepEqual(await imagesIn(both, 'us-east-1'), [EMPTY_IMAGE]);
  const { Reservations = [] } = await both.ec2.send(new DescribeInstancesCommand({ InstanceIds: [instanceId] }));
  assert.equal(Reservations.length, 1);
});
