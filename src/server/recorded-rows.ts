import type { SnapshotArchiveRow, SnapshotLockRow, SnapshotRow } from '../catalog/schema.ts';
import type { SnapshotRecord } from '../snapshots/snapshot-record.ts';
import type { SnapshotId } from '../types/ids.ts';

export function lockRowOf(lock: NonNullable<SnapshotRecord['lock']>, snapshot_id: SnapshotId): SnapshotLockRow {
  return {
    snapshot_id,
    mode: lock.mode,
    cool_off_hours: lock.coolOffHours,
    created_at: lock.createdAt,
    set_at: lock.setAt,
    duration_days: lock.durationDays,
    expires_at: lock.expiresAt,
  };
}

export function archiveRowOf(
  archive: NonNullable<SnapshotRecord['archive']>,
  snapshot_id: SnapshotId,
): SnapshotArchiveRow {
  const { root, since, restoredUntil } = archive;
  return {
    snapshot_id,
    operation: restoredUntil === null ? 'archival' : 'temporary-restore',
    status: 'completed',
    detail: '',
    started_at: since,
    root,
    archived_at: since,
    restore_days: null,
    restored_until: restoredUntil,
  };
}

/** A completed snapshot, as its record has it. */
export function rowOf(record: SnapshotRecord): SnapshotRow {
  return {
    snapshot_id: record.snapshotId,
    account_id: record.ownerId,
    region: record.region,
    set_id: record.setId,
    volume_id: record.volumeId,
    parent_snapshot_id: record.parentSnapshotId,
    device_name: record.deviceName,
    is_root: record.isRoot ? 1 : 0,
    volume_type: record.volumeType,
    size_gib: record.volumeSizeGiB,
    description: record.description,
    started_at: record.startTime,
    completed_at: record.completionTime,
    state: 'completed',
    state_message: '',
    boundary: null,
    root: record.root,
    data_blocks: record.dataBlocks,
    stored_bytes: 0,
    data_key_id: record.encryption?.dataKeyId ?? null,
    kms_key_arn: record.encryption?.kmsKeyArn ?? null,
    binned_at: record.recycleBin?.since ?? null,
    binned_until: record.recycleBin?.until ?? null,
  };
}
