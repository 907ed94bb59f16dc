import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { copyFileSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import type { KeyOwner } from '../../src/keys/key-service.ts';
import { Keyring } from '../../src/keys/keyring.ts';
import { parseAccountId } from '../../src/types/ids.ts';
import { NodeDisk } from '../../src/volumes/node-disk.ts';
import { MemoryStore } from '../support/memory-store.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';

const OWNER: KeyOwner = { accountId: parseAccountId('000000000001') ?? assert.fail(), region: 'us-east-1' };

test('a keyring that was put back from an older state overwrites no key that only its copy has', async (t) => {
  const [directory, store] = [temporaryDirectory(t), new MemoryStore()];
  const [path, keyFile] = [`${directory}/keyring.json`, `${directory}/key`];
  writeFileSync(keyFile, randomBytes(48), { mode: 0o600 });
  const open = (): Keyring =>
    Keyring.open({
      disk: new NodeDisk(),
      path,
      store,
      protection: { kind: 'file', path: keyFile },
      now: () => new Date(0),
    });
  const keyring = open();
  const rotated = await keyring.create(OWNER, 'rotated later', undefined);
  copyFileSync(path, `${directory}/older`);
  await keyring.rotate(rotated.keyId, OWNER);
  const later = await keyring.create(OWNER, 'made later', undefined);
  const wrapped = await Promise.all(
    [rotated, later].map(async ({ arn }) => ({ arn, ...(await keyring.newDataKey(arn, 'data-key')) })),
  );

  copyFileSync(`${directory}/older`, path);
  const older = open();
  const newest = await older.create(OWNER, 'made after that', undefined);
  for (const opened of [older, open()]) {
    for (const { arn, bytes, wrapped: text } of wrapped) {
      assert.deepEqual(Buffer.from(await opened.unwrap(arn, text, 'data-key')), Buffer.from(bytes));
    }
    assert.deepEqual(
      (await opened.list(OWNER)).map(({ arn }) => arn).sort(),
      [rotated.arn, later.arn, newest.arn].sort(),
    );
  }
  assert.equal(new NodeDisk().readText(path), store.objects.get('keyring.json')?.toString());
  // A copy that cannot be read may have keys, too.
  store.objects.set('keyring.json', Buffer.from('{"version":1'));
  await assert.rejects(older.create(OWNER, 'no', undefined), /keyring\.json in memory:\/\/ is damaged/);
  // None at all: a new bucket.
  store.objects.clear();
  await older.create(OWNER, 'yes', undefined);
  assert.equal((await older.list(OWNER)).length, 4);
});
