import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DescribeRegionsCommand } from '@aws-sdk/client-ec2';
import { GetCallerIdentityCommand, STSClient } from '@aws-sdk/client-sts';
import { readCredentials, startTestServer } from '../support/server.ts';

test('sts:GetCallerIdentity says who asks, and a wrong key is told so', async (t) => {
  const server = await startTestServer(t);
  const credentials = readCredentials(server.dataDir);
  const settings = { region: 'us-east-1', endpoint: server.apiUrl, maxAttempts: 1 };
  const sts = new STSClient({ ...settings, credentials });
  const identity = await sts.send(new GetCallerIdentityCommand({}));
  assert.equal(identity.Account, '000000000001');
  assert.equal(identity.Arn, 'arn:aws:iam::000000000001:user/admin');
  sts.destroy();
  const stranger = new STSClient({ ...settings, credentials: { accessKeyId: 'AKIAX', secretAccessKey: 'y' } });
  await assert.rejects(stranger.send(new GetCallerIdentityCommand({})), { name: 'InvalidClientTokenId' });
  stranger.destroy();
});

test('an account that asks too often is told to wait, and may go on when it has', async (t) => {
  const server = await startTestServer(t, { flags: ['--requests-per-second', '5', '--request-burst', '3'] });
  const ask = () => server.ec2.send(new DescribeRegionsCommand({}));
  const answers = await Promise.allSettled(Array.from({ length: 10 }, ask));
  const refused = answers.filter((answer) => answer.status === 'rejected');
  assert.ok(refused.length >= 5 && refused.length <= 7, `${refused.length} refused`);
  for (const { reason } of refused) {
    assert.equal(reason.name, 'RequestLimitExceeded');
    assert.equal(reason.$metadata.httpStatusCode, 503);
  }
  for (;;) {
    const allowed = await ask().then(
      () => true,
      () => false,
    );
    if (allowed) break;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
});
