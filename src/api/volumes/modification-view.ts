import type { VolumeModification, VolumeType } from '@aws-sdk/client-ec2';
import type { VolumeModificationRow } from '../../catalog/schema.ts';

export function modificationView(modification: VolumeModificationRow): VolumeModification {
  return {
    VolumeId: modification.volume_id,
    ModificationState: modification.state,
    StatusMessage: modification.message === '' ? undefined : modification.message,
    Progress: modification.state === 'completed' ? 100 : 0,
    StartTime: new Date(modification.started_at),
    EndTime: modification.ended_at === null ? undefined : new Date(modification.ended_at),
    OriginalSize: modification.original_size_gib,
    OriginalVolumeType: modification.original_type as VolumeType,
    OriginalIops: modification.original_iops ?? undefined,
    OriginalThroughput: modification.original_throughput ?? undefined,
    OriginalMultiAttachEnabled: false,
    TargetSize: modification.target_size_gib,
    TargetVolumeType: modification.target_type as VolumeType,
    TargetIops: modification.target_iops ?? undefined,
    TargetThroughput: modification.target_throughput ?? undefined,
    TargetMultiAttachEnabled: false,
  };
}
