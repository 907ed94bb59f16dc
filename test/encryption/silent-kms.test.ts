import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AttachVolumeCommand, CreateVolumeCommand } from '@aws-sdk/client-ec2';
import { createSnapshots, ended, launchInstance } from '../support/instances.ts';
import { startKmsServer } from '../support/kms-server.ts';
import { startTestServer } from '../support/server.ts';

test('a KMS that takes requests and never answers: what needs it fails, and nothing else waits', {
  timeout: 120_000,
}, async (t) => {
  const kms = await startKmsServer(t);
  const server = await startTestServer(t, {
    flags: ['--kms', kms.url],
    environment: { AWS_ACCESS_KEY_ID: 'of-the-kms', AWS_SECRET_ACCESS_KEY: 'secret' },
  });
  const encrypted = await launchInstance(server.ec2, []);
  const { VolumeId } = await server.ec2.send(
    new CreateVolumeCommand({ AvailabilityZone: 'us-east-1a', Size: 1, Encrypted: true }),
  );
  await server.ec2.send(new AttachVolumeCommand({ VolumeId, InstanceId: encrypted.instanceId, Device: '/dev/sdf' }));
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
