import assert from 'node:assert/strict';
import { existsSync, mkdirSync, symlinkSync } from 'node:fs';
import { createServer } from 'node:net';
import { test } from 'node:test';
import { DescribeVolumesCommand } from '@aws-sdk/client-ec2';
import { createSnapshots, launchInstance } from '../support/instances.ts';
import { startTestServer } from '../support/server.ts';
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
