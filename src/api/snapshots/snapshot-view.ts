import type { Snapshot, StorageTier } from '@aws-sdk/client-ec2';
import { isArchived } from '../../catalog/archive.ts';
import type { SnapshotArchiveRow, SnapshotRow } from '../../catalog/schema.ts';
import type { SnapshotRunner } from '../../lifecycle/snapshot-runner.ts';
import { BLOCK_BYTES } from '../../types/units.ts';
import { tagView } from '../tags/tag-view.ts';

export type TaggedSnapshot = SnapshotRow & {
  tags: ReadonlyMap<string, string>;
  grantees: readonly string[];
  progress: string;
  archive: SnapshotArchiveRow | undefined;
};

/** How far a snapshot has come, as `45%`. */
export function progressOf(snapshot: SnapshotRow, runner: SnapshotRunner): string {
  switch (snapshot.state) {
    case 'completed':
      return '100%';
    case 'error':
      return '';
    case 'pending': {
      // All stored, and waiting for the rest of its set.
      if (snapshot.root !== null) return '100%';
      const progress = runner.progressOf(snapshot.snapshot_id);
      if (progress === undefined) return '0%';
      const share = progress.totalBlocks === 0 ? 1 : progress.doneBlocks / progress.totalBlocks;
      return `${Math.min(99, Math.floor(share * 100))}%`;
    }
    default:
      return snapshot.state satisfies never;
  }
}

/** One that is restored from the archive for a while is ready for use, and so in the standard tier. */
export function tierOf(snapshot: SnapshotRow): StorageTier {
  return isArchived(snapshot) ? 'archive' : 'standard';
}

export function dateOrNone(time: string | null | undefined): Date | undefined {
  return time == null ? undefined : new Date(time);
}

/** Whether all its bytes are, somewhere. */
function isStored({ state, root }: SnapshotRow): boolean {
  return state === 'completed' || root !== null;
}

export function snapshotView(snapshot: TaggedSnapshot): Snapshot {
  return {
    SnapshotId: snapshot.snapshot_id,
    VolumeId: snapshot.volume_id,
    OwnerId: snapshot.account_id,
    Description: snapshot.description,
    Encrypted: snapshot.data_key_id !== null,
    KmsKeyId: snapshot.kms_key_arn ?? undefined,
    DataEncryptionKeyId: snapshot.data_key_id ?? undefined,
    State: snapshot.state,
    StateMessage: snapshot.state_message === '' ? undefined : snapshot.state_message,
    Progress: snapshot.progress,
    StartTime: new Date(snapshot.started_at),
    CompletionTime: dateOrNone(snapshot.completed_at),
    VolumeSize: snapshot.size_gib,
    StorageTier: tierOf(snapshot),
    RestoreExpiryTime: dateOrNone(snapshot.archive?.restored_until),
    FullSnapshotSizeInBytes: isStored(snapshot) ? snapshot.data_blocks * BLOCK_BYTES : undefined,
    Tags: tagView(snapshot.tags),
  };
}
