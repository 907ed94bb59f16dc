import { type AccountId, type ImageId, knownId } from '../types/ids.ts';
import type { Catalog } from './catalog.ts';

/** The default region's, the same on every server, so that scripts can name it; other regions count on from it. */
export const EMPTY_IMAGE_ID: ImageId = emptyImageId(0);

function emptyImageId(region: number): ImageId {
  return knownId('ami', `ami-${(region + 1).toString(16).padStart(17, '0')}`);
}

const NAME = 'cleancut-empty';

/** A public image whose root volume begins empty: enough to launch a first instance. One for each region, once. */
export async function seedImage(
  catalog: Catalog,
  accountId: AccountId,
  region: string,
  regionIndex: number,
  now: Date,
): Promise<void> {
  const images = await catalog
    .selectFrom('images')
    .select(['image_id', 'region', 'name'])
    .where('is_public', '=', 1)
    .execute();
  if (images.some((image) => image.region === region && image.name === NAME)) return;
  const taken = new Set(images.map((image) => image.image_id));
  // The regions may have come in another order before.
  let number = regionIndex;
  while (taken.has(emptyImageId(number))) number += 1;
  const imageId = emptyImageId(number);
  await catalog.transaction().execute(async (transaction) => {
    await transaction
      .insertInto('images')
      .values({
        image_id: imageId,
        account_id: accountId,
        region,
        name: NAME,
        description: 'An empty root volume of 8 GiB',
        root_device_name: '/dev/xvda',
        is_public: 1,
        created_at: now.toISOString(),
        architecture: 'x86_64',
        virtualization_type: 'hvm',
        ena_support: 0,
        sriov_net_support: null,
      })
      .execute();
    await transaction
      .insertInto('image_devices')
      .values({
        image_id: imageId,
        device_name: '/dev/xvda',
        snapshot_id: null,
        size_gib: 8,
        volume_type: 'gp3',
        delete_on_termination: 1,
      })
      .execute();
  });
}
