import type { Catalog, CatalogTransaction } from '../../catalog/catalog.ts';
import type { AttachmentRow, VolumeRow } from '../../catalog/schema.ts';
import type { InstanceId } from '../../types/ids.ts';

export type AttachedVolume = VolumeRow & AttachmentRow;

/** An instance's volumes, in the order of their device names. */
export function attachedVolumes(catalog: Catalog, instanceId: InstanceId): Promise<AttachedVolume[]> {
  return catalog
    .selectFrom('attachments')
    .innerJoin('volumes', 'volumes.volume_id', 'attachments.volume_id')
    .selectAll('volumes')
    .select([
      'attachments.instance_id',
      'attachments.device_name',
      'attachments.attached_at',
      'attachments.delete_on_termination',
    ])
    .where('attachments.instance_id', '=', instanceId)
    .orderBy('attachments.device_name')
    .execute();
}

/** Ends an attachment. @param last what becomes of the volume when there is no other */
export async function removeAttachment(
  transaction: CatalogTransaction,
  { volume_id, instance_id }: Pick<AttachmentRow, 'volume_id' | 'instance_id'>,
  last: 'available' | 'deleting' = 'available',
): Promise<void> {
  await transaction
    .deleteFrom('attachments')
    .where('volume_id', '=', volume_id)
    .where('instance_id', '=', instance_id)
    .execute();
  const other = await transaction
    .selectFrom('attachments')
    .select('instance_id')
    .where('volume_id', '=', volume_id)
    .executeTakeFirst();
  if (other !== undefined) return;
  await transaction.updateTable('volumes').set({ state: last }).where('volume_id', '=', volume_id).execute();
}
