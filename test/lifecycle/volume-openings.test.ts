import assert from 'node:assert/strict';
import { test } from 'node:test';
import { openCatalog } from '../../src/catalog/catalog.ts';
import type { DataKeys } from '../../src/keys/data-keys.ts';
import { VolumeOpenings } from '../../src/lifecycle/volume-openings.ts';
import { newId } from '../../src/types/ids.ts';
import { asEpoch, GIB } from '../../src/types/units.ts';
import { insertSnapshot, insertVolume } from '../support/catalog-rows.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';

test('who asks for one volume gets what one who asks for all gets, and does not wait for another volume’s key', async (t) => {
  const catalog = await openCatalog(`${temporaryDirectory(t)}/catalog.sqlite`);
  t.after(() => catalog.destroy());
  const volumes = [await insertVolume(catalog), await insertVolume(catalog), await insertVolume(catalog)];
  for (const boundary of [7, 4]) await insertSnapshot(catalog, { volume_id: volumes[1], boundary: asEpoch(boundary) });
  await catalog
    .updateTable('volumes')
    .set({ base_boundary: asEpoch(4) })
    .where('volume_id', '=', volumes[1])
    .execute();
  await catalog.insertInto('data_keys').values({ data_key_id: 'slow', kms_key_arn: 'arn', wrapped: '' }).execute();
  await catalog.updateTable('volumes').set({ data_key_id: 'slow' }).where('volume_id', '=', volumes[2]).execute();
  const slow = Promise.withResolvers<{ bytes: Uint8Array }>();
  const keys = { open: async (id: string | null) => (id === null ? undefined : slow.promise) };
  const openings = new VolumeOpenings(catalog, keys as unknown as DataKeys);

  const missing = assert.rejects(openings.of([newId('vol')]), /the catalog has no volume vol-/);
  const [first, second, third] = volumes.map((volumeId) => openings.of([volumeId]));
  const together = openings.of(volumes);
  const opened = [...(await first), ...(await second)];
  await missing;
  slow.resolve({ bytes: Uint8Array.of(1, 2, 3) });
  opened.push(...(await third));
  assert.deepEqual(
    opened.map(({ volumeId, base, pendingCuts, key }) => ({ volumeId, base, pendingCuts, key })),
    [
      { volumeId: volumes[0], base: 1, pendingCuts: [], key: undefined },
      { volumeId: volumes[1], base: 4, pendingCuts: [4, 7], key: undefined },
      { volumeId: volumes[2], base: 1, pendingCuts: [], key: Uint8Array.of(1, 2, 3) },
    ],
  );
  assert.equal(opened[0].sizeBytes, GIB);
  assert.deepEqual(await together, opened);
});
