import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  AttachVolumeCommand,
  CreateVolumeCommand,
  StartInstancesCommand,
  StopInstancesCommand,
} from '@aws-sdk/client-ec2';
import { createSnapshots, ended, launchInstance } from '../support/instances.ts';
import { startKmsServer, type TestKms } from '../support/kms-server.ts';
import { childrenOf } from '../support/processes.ts';
import { startTestServer, type TestServer } from '../support/server.ts';

const KEY_OF_KMS = { AWS_ACCESS_KEY_ID: 'of-the-kms', AWS_SECRET_ACCESS_KEY: 'secret' };

function startServer(t: TestContext, kms: TestKms, dataDir?: string): Promise<TestServer> {
  const where = dataDir === undefined ? {} : { dataDir };
  return startTestServer(t, { ...where, flags: ['--kms', kms.url], environment: KEY_OF_KMS });
}

/** An instance with an encrypted volume. */
async function launchEncrypted({ ec2 }: TestServer): Promise<{ instanceId: string; volumeId: string }> {
  const { instanceId } = await launchInstance(ec2, []);
  const create = { AvailabilityZone: 'us-east-1a', Size: 1, Encrypted: true };
  const { VolumeId: volumeId = '' } = await ec2.send(new CreateVolumeCommand(create));
  await ec2.send(new AttachVolumeCommand({ VolumeId: volumeId, InstanceId: instanceId, Device: '/dev/sdf' }));
  return { instanceId, volumeId };
}

/** Reads a byte of the volume as soon as it can be reached. */
async function firstByte(server: TestServer, volumeId: string): Promise<number> {
  const until = performance.now() + 60_000;
  for (;;) {
    try {
      const client = await server.connect(volumeId);
      const [byte] = await client.read(0, 1);
      await client.close();
      return byte;
    } catch (error) {
      if (performance.now() > until) throw error;
      await sleep(20);
    }
  }
}

test('a KMS that takes requests and never answers: what needs it fails, and nothing else waits', {
  timeout: 120_000,
}, async (t) => {
  const kms = await startKmsServer(t);
  const server = await startServer(t, kms);
  const encrypted = await launchEncrypted(server);
  const plain = await launchInstance(server.ec2, [1]);

  kms.answering = false;
  let hasFailed = false;
  const failing = createSnapshots(server.ec2, encrypted.instanceId).then(
    () => assert.fail('a cut without its key'),
    (error: Error) => {
      hasFailed = true;
      return error;
    },
  );
  // It has asked, and waits.
  while (kms.unanswered === 0) await new Promise((resolve) => setTimeout(resolve, 10));
  const snapshots = await createSnapshots(server.ec2, plain.instanceId);
  assert.ok(!hasFailed, 'the KMS answered');
  for (const { State } of await ended(server.ec2, snapshots)) assert.equal(State, 'completed');
  assert.match((await failing).message, /keys cannot be reached/);
  kms.answering = true;
  for (const { State } of await ended(server.ec2, await createSnapshots(server.ec2, encrypted.instanceId))) {
    assert.equal(State, 'completed');
  }
});

test('beside a silent KMS a server starts, and a worker comes back, with all the volumes that need no key', {
  timeout: 180_000,
}, async (t) => {
  const kms = await startKmsServer(t);
  const first = await startServer(t, kms);
  // Those with keys come first.
  const encrypted = [await launchEncrypted(first), await launchEncrypted(first), await launchEncrypted(first)];
  const { volumes } = await launchInstance(first.ec2, [1, 1]);
  for (const [index, volumeId] of [...volumes, ...encrypted.map((each) => each.volumeId)].entries()) {
    const client = await first.connect(volumeId);
    await client.write(0, Buffer.of(1 + index));
    await client.close();
  }
  await first.stop();

  kms.answering = false;
  const server = await startServer(t, kms, first.dataDir);
  assert.doesNotMatch(server.log(), /keys cannot be reached/, 'it waited for a key');
  for (const { instanceId } of encrypted) assert.ok(server.log().includes(instanceId), server.log());
  for (const [index, volumeId] of volumes.entries()) assert.equal(await firstByte(server, volumeId), 1 + index);
  await assert.rejects(server.connect(encrypted[0].volumeId));
  kms.answering = true;
  // A question that the KMS had left without an answer is put once more; where that was the third time, a start does it.
  const InstanceIds = encrypted.map((each) => each.instanceId);
  await server.ec2.send(new StopInstancesCommand({ InstanceIds }));
  await server.ec2.send(new StartInstancesCommand({ InstanceIds }));
  for (const [index, { volumeId }] of encrypted.entries()) assert.equal(await firstByte(server, volumeId), 3 + index);

  kms.answering = false;
  const workers = childrenOf(server.process.pid ?? 0);
  assert.equal(workers.length, 2);
  for (const worker of workers) process.kill(worker, 'SIGKILL');
  for (const [index, volumeId] of volumes.entries()) assert.equal(await firstByte(server, volumeId), 1 + index);
  assert.doesNotMatch(server.log(), /could not be exported again/, 'a worker waited for a key');
  kms.answering = true;
  for (const [index, { volumeId }] of encrypted.entries()) assert.equal(await firstByte(server, volumeId), 3 + index);
});
