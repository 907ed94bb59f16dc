import type { ImageId, SnapshotId } from '../types/ids.ts';
import type { Catalog } from './catalog.ts';

/** An image that names a snapshot: instances are launched of it. */
export async function imageOf(catalog: Catalog, snapshotId: SnapshotId): Promise<ImageId | undefined> {
  const device = await catalog
    .selectFrom('image_devices')
    .select('image_id')
    .where('snapshot_id', '=', snapshotId)
    .executeTakeFirst();
  return device?.image_id;
}
