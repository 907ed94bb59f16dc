import type { CatalogTransaction } from '../../catalog/catalog.ts';
import type { SnapshotRow } from '../../catalog/schema.ts';
import { putTags } from '../../catalog/tags.ts';
import { type InstanceId, knownId, newId, type SetId, type SnapshotId, type VolumeId } from '../../types/ids.ts';
import type { EpochNumber, Sha256 } from '../../types/units.ts';
import type { Call } from '../operation.ts';
import type { Tags } from '../tags/tag-rules.ts';

/** What EC2 shows as the volume of a snapshot that was not made from one of the account's. */
export const NO_VOLUME: VolumeId = knownId('vol', 'vol-ffffffff');

/** One snapshot of a set that is to be. */
export type NewSnapshot = {
  volumeId: VolumeId;
  volumeType: string;
  sizeGiB: number;
  device: { name: string; isRoot: boolean } | undefined;
  tags: Tags;
  /** The snapshot that it is written on top of. */
  parentId?: SnapshotId | undefined;
  /** The data key that it is encrypted with, and the KMS key that wraps that; null where it is not. */
  encryption: Pick<SnapshotRow, 'data_key_id' | 'kms_key_arn'>;
  /** The cut whose bytes are to be stored; or a manifest that is stored already; or neither yet (an import). */
  bytes: { boundary: EpochNumber } | { root: Sha256; dataBlocks: number } | undefined;
};

export type NewSet = {
  instanceId: InstanceId | null;
  description: string;
  startedAt: Date;
  holdMilliseconds: number;
  snapshots: readonly NewSnapshot[];
};

/** Records a pending set with its snapshots and their tags. @returns the set's id and the snapshots', in their order */
export async function insertSet(
  transaction: CatalogTransaction,
  call: Call,
  set: NewSet,
): Promise<{ setId: SetId; snapshotIds: SnapshotId[] }> {
  const { accountId } = call.caller;
  const { region } = call;
  const setId = newId('set');
  const started_at = set.startedAt.toISOString();
  await transaction
    .insertInto('snapshot_sets')
    .values({
      set_id: setId,
      account_id: accountId,
      region,
      instance_id: set.instanceId,
      description: set.description,
      started_at,
      hold_milliseconds: set.holdMilliseconds,
      state: 'pending',
    })
    .execute();
  const rows = set.snapshots.map(
    ({ volumeId, volumeType, sizeGiB, device, parentId, encryption, bytes }): SnapshotRow => ({
      snapshot_id: newId('snap'),
      account_id: accountId,
      region,
      set_id: setId,
      volume_id: volumeId,
      parent_snapshot_id: parentId ?? null,
      device_name: device?.name ?? null,
      is_root: device?.isRoot === true ? 1 : 0,
      volume_type: volumeType,
      size_gib: sizeGiB,
      description: set.description,
      started_at,
      completed_at: null,
      binned_at: null,
      binned_until: null,
      state: 'pending',
      state_message: '',
      boundary: bytes !== undefined && 'boundary' in bytes ? bytes.boundary : null,
      root: bytes !== undefined && 'root' in bytes ? bytes.root : null,
      data_blocks: bytes !== undefined && 'root' in bytes ? bytes.dataBlocks : 0,
      stored_bytes: 0,
      data_key_id: encryption.data_key_id,
      kms_key_arn: encryption.kms_key_arn,
    }),
  );
  await transaction.insertInto('snapshots').values(rows).execute();
  const snapshotIds = rows.map((row) => row.snapshot_id);
  for (const [index, resourceId] of snapshotIds.entries()) {
    const owner = { resourceId, resourceType: 'snapshot', accountId, region } as const;
    await putTags(transaction, owner, set.snapshots[index].tags);
  }
  return { setId, snapshotIds };
}
