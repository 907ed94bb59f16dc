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
