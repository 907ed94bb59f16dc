import type { BlockDeviceMapping } from '@aws-sdk/client-ec2';
import { isArchived } from '../../catalog/archive.ts';
import type { CatalogTransaction } from '../../catalog/catalog.ts';
import type { ImageDeviceRow, ImageRow } from '../../catalog/schema.ts';
import { putTags } from '../../catalog/tags.ts';
import { type ImageId, newId } from '../../types/ids.ts';
import { errors } from '../errors.ts';
import type { Call } from '../operation.ts';
import { stillThere } from '../snapshots/find-snapshot.ts';
import type { Tags } from '../tags/tag-rules.ts';

/** @throws ApiError MissingParameter, InvalidAMIName.Malformed */
export function checkImageName(name: string | undefined): string {
  if (name === undefined) throw errors.missing('Name');
  if (!/^[\w ()./\-'@[\]]{3,128}$/.test(name)) throw errors.malformedImageName(name);
  return name;
}

/** @throws ApiError InvalidAMIName.Duplicate */
export async function requireFreeName(call: Call, name: string): Promise<void> {
  const taken = await call.services.catalog
    .selectFrom('images')
    .select('image_id')
    .where('account_id', '=', call.caller.accountId)
    .where('region', '=', call.region)
    .where('name', '=', name)
    .executeTakeFirst();
  if (taken !== undefined) throw errors.duplicateImageName(name, taken.image_id);
}

/** An image's devices are encrypted as their snapshots are. @throws ApiError UnsupportedOperation */
export function refuseEncryption(mappings: readonly BlockDeviceMapping[] | undefined): void {
  for (const { Ebs } of mappings ?? []) {
    if (Ebs?.Encrypted !== true) continue;
    throw errors.unsupported('Ebs.Encrypted=true: the devices of an image are encrypted as their snapshots are.');
  }
}

export type NewImage = {
  name: string;
  description: string;
  rootDeviceName: string;
  devices: readonly Omit<ImageDeviceRow, 'image_id'>[];
  tags: Tags;
  computer: Pick<ImageRow, 'architecture' | 'virtualization_type' | 'ena_support' | 'sriov_net_support'>;
};

/** @throws ApiError InvalidSnapshot.NotFound when one of its snapshots was deleted since it was looked at */
export async function insertImage(transaction: CatalogTransaction, call: Call, image: NewImage): Promise<ImageId> {
  const imageId = newId('ami');
  const { accountId } = call.caller;
  await transaction
    .insertInto('images')
    .values({
      image_id: imageId,
      account_id: accountId,
      region: call.region,
      name: image.name,
      description: image.description,
      root_device_name: image.rootDeviceName,
      is_public: 0,
      created_at: call.services.now().toISOString(),
      ...image.computer,
    })
    .execute();
  for (const device of image.devices) {
    if (device.snapshot_id !== null) {
      const snapshot = await stillThere(transaction, device.snapshot_id);
      if (isArchived(snapshot)) throw errors.snapshotArchived(device.snapshot_id);
    }
    await transaction
      .insertInto('image_devices')
      .values({ image_id: imageId, ...device })
      .execute();
  }
  await putTags(
    transaction,
    { resourceId: imageId, resourceType: 'image', accountId, region: call.region },
    image.tags,
  );
  return imageId;
}
