import type { Catalog } from '../../catalog/catalog.ts';
import type { ImageDeviceRow, ImageRow } from '../../catalog/schema.ts';
import type { ImageId } from '../../types/ids.ts';
import { errors } from '../errors.ts';
import type { Call } from '../operation.ts';

/** The caller's own images, and public ones. @throws ApiError InvalidAMIID.NotFound */
export async function findImage(call: Call, imageId: ImageId): Promise<ImageRow> {
  const image = await call.services.catalog
    .selectFrom('images')
    .selectAll()
    .where('image_id', '=', imageId)
    .where('region', '=', call.region)
    .executeTakeFirst();
  if (image === undefined || (image.is_public === 0 && image.account_id !== call.caller.accountId)) {
    throw errors.noImage(imageId);
  }
  return image;
}

export function imageDevices(catalog: Catalog, imageId: ImageId): Promise<ImageDeviceRow[]> {
  return catalog
    .selectFrom('image_devices')
    .selectAll()
    .where('image_id', '=', imageId)
    .orderBy('device_name')
    .execute();
}

export type ImageState = 'pending' | 'available' | 'failed';

/** An image is what its snapshots are: pending while one is, failed when one has. */
export async function imageStates(catalog: Catalog, ids: readonly ImageId[]): Promise<Map<ImageId, ImageState>> {
  const rows = await catalog
    .selectFrom('image_devices')
    .innerJoin('snapshots', 'snapshots.snapshot_id', 'image_devices.snapshot_id')
    .select(['image_devices.image_id', 'snapshots.state'])
    .where('image_devices.image_id', 'in', [...ids])
    .where('snapshots.state', '!=', 'completed')
    .execute();
  const states = new Map<ImageId, ImageState>();
  for (const { image_id, state } of rows) {
    if (state === 'error') states.set(image_id, 'failed');
    else if (!states.has(image_id)) states.set(image_id, 'pending');
  }
  return states;
}
