import type { Volume, VolumeAttachment, VolumeType } from '@aws-sdk/client-ec2';
import type { Catalog } from '../../catalog/catalog.ts';
import type { AttachmentRow, VolumeRow } from '../../catalog/schema.ts';
import { tagsOf } from '../../catalog/tags.ts';
import { tagView } from '../tags/tag-view.ts';

export type TaggedVolume = VolumeRow & { attachments: AttachmentRow[]; tags: ReadonlyMap<string, string> };

/** Puts volumes together with their attachments and tags. */
export async function withAttachments(catalog: Catalog, volumes: readonly VolumeRow[]): Promise<TaggedVolume[]> {
  const ids = volumes.map((volume) => volume.volume_id);
  if (ids.length === 0) return [];
  const attachments = await catalog.selectFrom('attachments').selectAll().where('volume_id', 'in', ids).execute();
  const byVolume = Map.groupBy(attachments, (attachment) => attachment.volume_id);
  const tags = await tagsOf(catalog, ids);
  return volumes.map((volume) => ({
    ...volume,
    attachments: byVolume.get(volume.volume_id) ?? [],
    tags: tags.get(volume.volume_id) ?? new Map(),
  }));
}

export function volumeView(volume: TaggedVolume): Volume {
  return {
    VolumeId: volume.volume_id,
    Size: volume.size_gib,
    VolumeType: volume.volume_type as VolumeType,
    Iops: volume.iops ?? undefined,
    Throughput: volume.throughput ?? undefined,
    AvailabilityZone: volume.zone,
    State: volume.state,
    CreateTime: new Date(volume.created_at),
    // An empty element where there is none, as EC2 writes it.
    SnapshotId: volume.snapshot_id ?? '',
    Encrypted: volume.data_key_id !== null,
    KmsKeyId: volume.kms_key_arn ?? undefined,
    MultiAttachEnabled: volume.multi_attach === 1,
    Attachments: volume.attachments.map((attachment) => attachmentView(attachment, 'attached')),
    Tags: tagView(volume.tags),
  };
}

export function attachmentView(attachment: AttachmentRow, state: 'attached' | 'detached'): VolumeAttachment {
  return {
    VolumeId: attachment.volume_id,
    InstanceId: attachment.instance_id,
    Device: attachment.device_name,
    State: state,
    AttachTime: new Date(attachment.attached_at),
    DeleteOnTermination: attachment.delete_on_termination === 1,
  };
}
