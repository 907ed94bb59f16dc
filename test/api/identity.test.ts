import assert from 'node:assert/strict';
import { test } from 'node:test';
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
