import type { Catalog } from '../../catalog/catalog.ts';
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
