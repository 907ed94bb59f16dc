import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { copyFileSync, readFileSync, writeFileSync } from 'node:fs';
import { Agent, request } from 'node:https';
import { connect } from 'node:net';
import { test } from 'node:test';
import { connect as connectTls } from 'node:tls';
import { DescribeVolumesCommand, EC2Client } from '@aws-sdk/client-ec2';
import { makeAuthority } from '../support/certificates.ts';
import { launchInstance } from '../support/instances.ts';
import { childrenOf } from '../support/processes.ts';
import { readCredentials, startTestServer, type TestServer } from '../support/server.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';
import { tool, without } from '../support/tools.ts';

const CLEANCUT = new URL('../../bin/cleancut.js', import.meta.url).pathname;
const needsOpenssl = { skip: without('openssl') };
const needsClients = { skip: without('openssl') || without('nbdinfo') || without('qemu-img') };

test('anything but the loopback without TLS is refused at start, and says what to do', async (t) => {
  const refused = (flags: string[]) => startTestServer(t, { flags });
  await assert.rejects(refused(['--host', '0.0.0.0']), /--tls-cert and --tls-key/);
  await assert.rejects(refused(['--host', '0.0.0.0', '--tls-cert', '/c']), /go together/);
  await assert.rejects(
    refused(['--host', '0.0.0.0', '--tls-cert', '/c', '--tls-key', '/k']),
    /--nbd-tls-cert, --nbd-tls-key and --nbd-tls-ca/,
  );
  await assert.rejects(refused(['--nbd-tls-cert', '/c', '--nbd-tls-key', '/k']), /no client could prove/);
});

test(
  'the API over HTTPS: the SDK and the CLI use it, and a certificate that changes is taken up',
  needsOpenssl,
  async (t) => {
    const directory = temporaryDirectory(t);
    const authority = await makeAuthority(`${directory}/a`);
    const files = await authority.issue('localhost');
    const server = await startTestServer(t, { flags: ['--tls-cert', files.cert, '--tls-key', files.key] });
    assert.match(server.apiUrl, /^https:/);
    const agent = new Agent({ ca: readFileSync(authority.certificate) });
    const ec2 = new EC2Client({
      region: 'us-east-1',
      endpoint: server.apiUrl,
      credentials: readCredentials(server.dataDir),
      requestHandler: { httpsAgent: agent },
    });
    t.after(() => ec2.destroy());
    assert.deepEqual((await ec2.send(new DescribeVolumesCommand({}))).Volumes, []);
    assert.match(await tool(process.execPath, [CLEANCUT, 'status', '--data-dir', server.dataDir]), /objectStore/);
    // No TLS, no answer.
    await assert.rejects(fetch(server.apiUrl.replace('https', 'http')));
    const { port } = new URL(server.apiUrl);
    const serial = (): Promise<string> =>
      new Promise((resolve, reject) => {
        const socket = connectTls({ host: '127.0.0.1', port: Number(port), rejectUnauthorized: false }, () => {
          resolve(socket.getPeerCertificate().serialNumber);
          socket.destroy();
        });
        socket.on('error', reject);
      });
    const first = await serial();
    const next = await authority.issue('localhost');
    copyFileSync(next.cert, files.cert);
    copyFileSync(next.key, files.key);
    while ((await serial()) === first) await new Promise((resolve) => setTimeout(resolve, 100));
    // Old protocols are not spoken.
    const old = connectTls({ host: '127.0.0.1', port: Number(port), rejectUnauthorized: false, maxVersion: 'TLSv1.1' });
    await assert.rejects(new Promise((_, reject) => old.on('error', reject)));
    const answer = await new Promise<number | undefined>((resolve, reject) => {
      request(`${server.apiUrl}/health`, { ca: readFileSync(authority.certificate) }, (response) => {
        response.resume();
        resolve(response.statusCode);
      })
        .on('error', reject)
        .end();
    });
    assert.equal(answer, 200);
  },
);

async function tlsServer(
  t: Parameters<typeof startTestServer>[0],
): Promise<{ server: TestServer; authority: Awaited<ReturnType<typeof makeAuthority>>; psk: string }> {
  const directory = temporaryDirectory(t);
  const authority = await makeAuthority(`${directory}/a`);
  const { cert, key } = await authority.issue('localhost');
  const psk = `${directory}/psk`;
  writeFileSync(psk, `000000000001:${randomBytes(32).toString('hex')}\n`, { mode: 0o600 });
  const flags = ['--nbd-tls-cert', cert, '--nbd-tls-key', key, '--nbd-tls-ca', authority.certificate];
  const server = await startTestServer(t, { flags: [...flags, '--nbd-psk-file', psk] });
  return { server, authority, psk };
}

function x509(server: TestServer, name: string, directory: string): string {
  return `nbds://localhost:${server.nbdPort}/${name}?tls-certificates=${directory}`;
}

test(
  'NBD over TLS with certificates: nbdinfo, nbdcopy and qemu-img get their own exports, and no others',
  needsClients,
  async (t) => {
    const { server, authority } = await tlsServer(t);
    const mine = await launchInstance(server.ec2, [1]);
    const other = await launchInstance(server.ec2, [1]);
    const byAccount = await authority.clientDirectory('000000000001');
    const byInstance = await authority.clientDirectory(mine.instanceId);
    const stranger = await authority.clientDirectory('000000000002');
    const nobody = await authority.clientDirectory('someone');
    const [volume] = mine.volumes;
    const bytes = randomBytes(300_000);
    const image = `${temporaryDirectory(t)}/image`;
    writeFileSync(image, bytes);
    await tool('nbdcopy', [image, x509(server, volume, byInstance)]);
    const back = `${temporaryDirectory(t)}/back`;
    await tool('nbdcopy', [x509(server, volume, byAccount), back]);
    assert.ok(readFileSync(back).subarray(0, bytes.length).equals(bytes));
    const info = await tool('nbdinfo', [x509(server, volume, byInstance)]);
    assert.match(info, /with TLS/);
    const creds = `tls-creds-x509,id=tls0,endpoint=client,dir=${byAccount}`;
    const options = `driver=nbd,host=localhost,port=${server.nbdPort},export=${volume},tls-creds=tls0`;
    const described = await tool('qemu-img', ['info', '--output=json', '--object', creds, '--image-opts', options]);
    assert.equal(JSON.parse(described)['virtual-size'], 1024 ** 3);
    const listed = await tool('nbdinfo', ['--list', x509(server, '', byInstance)]);
    assert.ok(listed.includes(volume) && !listed.includes(other.volumes[0]));
    for (const [who, name] of [
      [byInstance, other.volumes[0]],
      [stranger, volume],
      [nobody, volume],
    ] as const) {
      await assert.rejects(tool('nbdinfo', [x509(server, name, who)]), /No such file or directory for export/);
    }
  },
);

test(
  'NBD over TLS with shared keys, and what is refused: no TLS, no certificate, one of another authority, a wrong key',
  needsClients,
  async (t) => {
    const { server, authority, psk } = await tlsServer(t);
    const { volumes } = await launchInstance(server.ec2, [1]);
    const [volume] = volumes;
    const uri = (user: string, file: string): string =>
      `nbds://${user}@localhost:${server.nbdPort}/${volume}?tls-psk-file=${file}`;
    assert.match(await tool('nbdinfo', [uri('000000000001', psk)]), /with TLS/);
    const directory = temporaryDirectory(t);
    copyFileSync(psk, `${directory}/keys.psk`);
    const creds = `tls-creds-psk,id=tls0,endpoint=client,dir=${directory},username=000000000001`;
    const options = `driver=nbd,host=localhost,port=${server.nbdPort},export=${volume},tls-creds=tls0`;
    await tool('qemu-img', ['info', '--object', creds, '--image-opts', options]);
    const wrong = `${directory}/wrong.psk`;
    writeFileSync(
      wrong,
      `000000000001:${randomBytes(32).toString('hex')}\nunknown:${randomBytes(32).toString('hex')}\n`,
      {
        mode: 0o600,
      },
    );
    await assert.rejects(tool('nbdinfo', [uri('000000000001', wrong)]));
    await assert.rejects(tool('nbdinfo', [uri('unknown', wrong)]));
    await assert.rejects(tool('nbdinfo', [`nbd://localhost:${server.nbdPort}/${volume}`]), /opt_go/);
    // A file that changes is taken up: the new key is let in, and the old one no more.
    const renewed = `${directory}/renewed.psk`;
    writeFileSync(renewed, `000000000001:${randomBytes(32).toString('hex')}\n`, { mode: 0o600 });
    const old = `${directory}/old.psk`;
    copyFileSync(psk, old);
    copyFileSync(renewed, psk);
    const isLetIn = (file: string): Promise<boolean> =>
      tool('nbdinfo', [uri('000000000001', file)]).then(
        () => true,
        () => false,
      );
    while (!(await isLetIn(renewed))) await new Promise((resolve) => setTimeout(resolve, 100));
    assert.equal(await isLetIn(old), false);
    const elsewhere = await makeAuthority(`${directory}/b`, 'another authority');
    const forged = await elsewhere.clientDirectory('000000000001');
    copyFileSync(authority.certificate, `${forged}/ca-cert.pem`);
    await assert.rejects(tool('nbdinfo', [x509(server, volume, forged)]));
    const none = temporaryDirectory(t);
    copyFileSync(authority.certificate, `${none}/ca-cert.pem`);
    await assert.rejects(tool('nbdinfo', [x509(server, volume, none)]));
    // What comes in the clear along with STARTTLS could be anyone's: the connection ends.
    const smuggled = await new Promise<number>((resolve) => {
      const socket = connect(server.nbdPort, '127.0.0.1');
      let received = 0;
      socket.on('data', (data) => {
        received += data.length;
        if (received === data.length) {
          const options = Buffer.alloc(4 + 16 + 16);
          options.writeUInt32BE(3, 0);
          options.write('IHAVEOPT', 4, 'latin1');
          options.writeUInt32BE(5, 12);
          options.write('IHAVEOPT', 20, 'latin1');
          options.writeUInt32BE(3, 28);
          socket.write(options);
        }
      });
      socket.on('close', () => resolve(received));
      socket.on('error', () => resolve(received));
    });
    assert.equal(smuggled, 18);
  },
);

test('the TLS gateway is started again when it dies, and lets the server stop', needsClients, async (t) => {
  const { server, authority } = await tlsServer(t);
  const { volumes } = await launchInstance(server.ec2, [1]);
  const directory = await authority.clientDirectory('000000000001');
  const uri = x509(server, volumes[0], directory);
  await tool('nbdinfo', [uri]);
  const gateway = childrenOf(server.process.pid ?? 0).find((pid) =>
    readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('tls-gateway'),
  );
  process.kill(gateway ?? 0, 'SIGKILL');
  for (;;) {
    const answered = await tool('nbdinfo', [uri]).then(
      () => true,
      () => false,
    );
    if (answered) break;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  assert.equal(await server.stop(), 0);
});
