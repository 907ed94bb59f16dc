import type { Catalog } from '../../catalog/catalog.ts';
import type { AttachmentRow, VolumeRow } from '../../catalog/schema.ts';
import type { InstanceId, VolumeId } from '../../types/ids.ts';

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

/** Ends an attachment; the volume is free when it was the last. */
export async function removeAttachment(catalog: Catalog, volumeId: VolumeId, instanceId: InstanceId): Promise<void> {
  await catalog.transaction().execute(async (transaction) => {
    await transaction
      .deleteFrom('attachments')
      .where('volume_id', '=', volumeId)
      .where('instance_id', '=', instanceId)
      .execute();
    const other = await transaction
      .selectFrom('attachments')
      .select('instance_id')
      .where('volume_id', '=', volumeId)
      .executeTakeFirst();
    if (other !== undefined) return;
    await transaction.updateTable('volumes').set({ state: 'available' }).where('volume_id', '=', volumeId).execute();
  });
}
