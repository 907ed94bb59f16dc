import assert from 'node:assert/strict';
import { test } from 'node:test';
import { KmsKeys } from '../../src/keys/kms-keys.ts';
import { OWNER } from '../support/catalog-rows.ts';
import { startKmsServer } from '../support/kms-server.ts';

const owner = { accountId: OWNER.account_id, region: OWNER.region };

test('who ask a KMS for the default key at the same time get one, also where another server makes it just then', async (t) => {
  process.env.AWS_ACCESS_KEY_ID ??= 'of-the-kms';
  process.env.AWS_SECRET_ACCESS_KEY ??= 'secret';
  const kms = await startKmsServer(t);
  const keys = new KmsKeys(kms.url, owner.region);
  const other = new KmsKeys(kms.url, owner.region);
  const arns = await Promise.all([keys, keys, keys, other].map((each) => each.defaultKey(owner)));
  assert.equal(new Set(arns).size, 1, arns.join(', '));
  assert.ok(kms.calls.filter((name) => name === 'CreateKey').length <= 2, 'more than one of each server');
  assert.equal(await keys.defaultKey(owner), arns[0]);
});
