import type { CatalogTransaction } from '../../catalog/catalog.ts';
import type { SnapshotRow, VolumeRow } from '../../catalog/schema.ts';
import { KeyError } from '../../keys/key-service.ts';
import type { AccountId, SnapshotId, VolumeId } from '../../types/ids.ts';
import { asEpoch } from '../../types/units.ts';
import { type Protection, recordDataKey } from '../encryption.ts';
import { errors } from '../errors.ts';
import type { ClientToken } from '../idempotency.ts';
import type { Call } from '../operation.ts';
import { assertReadable, findVisibleSnapshots, stillThere } from '../snapshots/find-snapshot.ts';
import type { VolumeShape } from './volume-types.ts';

export type NewVolume = {
  volumeId: VolumeId;
  accountId: AccountId;
  region: string;
  shape: VolumeShape;
  zone: string;
  multiAttach: boolean;
  source: SnapshotRow | undefined;
  protection: Protection;
  createdAt: Date;
  clientToken: ClientToken | undefined;
};

/**
 * Records a volume that is to be made; VolumeRunner.create then makes it (see makeOrUndo).
 * @throws ApiError InvalidSnapshot.NotFound, IncorrectState when the source was deleted, or archived, since it was looked at
 */
export async function insertVolume(transaction: CatalogTransaction, volume: NewVolume): Promise<VolumeRow> {
  const { shape, protection } = volume;
  // Again, in the same commit: what only a deleted snapshot named may be collected at any time.
  const source = volume.source && (await stillThere(transaction, volume.source.snapshot_id));
  // Without a manifest, the volume would be an empty one.
  if (source !== undefined) assertReadable(source);
  // Under another key than its snapshot's, none of the snapshot's objects can be part of its own.
  const related = source !== undefined && source.data_key_id === protection.data_key_id;
  await recordDataKey(transaction, protection);
  const row: VolumeRow = {
    volume_id: volume.volumeId,
    account_id: volume.accountId,
    region: volume.region,
    size_gib: shape.sizeGiB,
    volume_type: shape.type,
    iops: shape.iops,
    throughput: shape.throughput,
    zone: volume.zone,
    state: 'creating',
    created_at: volume.createdAt.toISOString(),
    snapshot_id: source?.snapshot_id ?? null,
    multi_attach: volume.multiAttach ? 1 : 0,
    auto_enable_io: 0,
    client_token: volume.clientToken?.token ?? null,
    client_token_request: volume.clientToken?.request ?? null,
    origin_root: source?.root ?? null,
    hydrated: source === undefined ? 1 : 0,
    // The volume begins as the snapshot is: its first own snapshot stores only what is written to it.
    base_boundary: asEpoch(1),
    base_root: related ? source.root : null,
    data_key_id: protection.data_key_id,
    kms_key_arn: protection.kms_key_arn,
    origin_key_id: source?.data_key_id ?? null,
  };
  await transaction.insertInto('volumes').values(row).execute();
  return row;
}

/**
 * Makes a volume that has been recorded; where that fails, nothing of it stays.
 * @param name for the message: "The volume"
 * @throws KeyError; ApiError InsufficientVolumeCapacity
 */
export async function makeOrUndo(call: Call, volumeId: VolumeId, name: string): Promise<void> {
  const { catalog, lifecycle } = call.services;
  try {
    await lifecycle.volumes.create([volumeId]);
  } catch (error) {
    await catalog.updateTable('volumes').set({ state: 'deleting' }).where('volume_id', '=', volumeId).execute();
    await lifecycle.volumes.reap([volumeId]);
    if (error instanceof KeyError) throw error;
    throw errors.noSpace(`${name} could not be created: ${(error as Error).message}`);
  }
}

/** @throws ApiError InvalidSnapshot.NotFound, IncorrectState when it is not completed, or archived */
export async function findRestorable(call: Call, snapshotId: SnapshotId): Promise<SnapshotRow> {
  const [snapshot] = await findVisibleSnapshots(call, [snapshotId]);
  assertReadable(snapshot);
  return snapshot;
}

/** A volume's size: as asked, or its snapshot's. @throws ApiError MissingParameter, InvalidParameterValue */
export function volumeSize(asked: number | undefined, source: SnapshotRow | undefined): number {
  if (source === undefined) {
    if (asked === undefined) throw errors.sizeOrSnapshot();
    return asked;
  }
  if (asked !== undefined && asked < source.size_gib) {
    throw errors.smallerThanSnapshot(asked, source.snapshot_id, source.size_gib);
  }
  return asked ?? source.size_gib;
}
