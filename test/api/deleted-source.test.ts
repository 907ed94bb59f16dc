import assert from 'node:assert/strict';
import { test } from 'node:test';
import { insertVolume } from '../../src/api/volumes/new-volume.ts';
import { openCatalog } from '../../src/catalog/catalog.ts';
import { newId } from '../../src/types/ids.ts';
import type { Sha256 } from '../../src/types/units.ts';
import { insertSnapshot, OWNER } from '../support/catalog-rows.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';

test('a snapshot that is deleted after it was looked at makes no volume: its bytes may be gone any time', async (t) => {
  const catalog = await openCatalog(`${temporaryDirectory(t)}/catalog.sqlite`);
  t.after(() => catalog.destroy());
  const source = await insertSnapshot(catalog, { root: 'a'.repeat(64) as Sha256 });
  const insert = () =>
    catalog.transaction().execute((transaction) =>
      insertVolume(transaction, {
        volumeId: newId('vol'),
        accountId: OWNER.account_id,
        region: OWNER.region,
        shape: { type: 'gp3', sizeGiB: 1, iops: null, throughput: null },
        zone: 'us-east-1a',
        multiAttach: false,
        source,
        protection: { data_key_id: null, kms_key_arn: null, made: undefined },
        createdAt: new Date(0),
        clientToken: undefined,
      }),
    );
  const made = await insert();
  assert.equal(made.origin_root, source.root);
  // Moved meanwhile (see Repacker): it is made of where the bytes are now.
  const root = 'b'.repeat(64) as Sha256;
  await catalog.updateTable('snapshots').set({ root }).execute();
  assert.equal((await insert()).origin_root, root);
  await catalog.deleteFrom('snapshots').execute();
  await assert.rejects(insert(), { code: 'InvalidSnapshot.NotFound' });
  assert.equal((await catalog.selectFrom('volumes').select('volume_id').execute()).length, 2);
});
