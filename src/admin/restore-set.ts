import { z } from 'zod';
import { type EncryptionPlan, planEncryption } from '../api/encryption.ts';
import { launch } from '../api/instances/launch.ts';
import { checkVolumeShape, type VolumeShape } from '../api/volumes/volume-types.ts';
import { isArchived } from '../catalog/archive.ts';
import type { SnapshotRow } from '../catalog/schema.ts';
import { EMPTY_IMAGE_ID } from '../catalog/seed-image.ts';
import { parseId } from '../types/ids.ts';
import { ApiError } from '../wire/api-error.ts';
import { verb } from './verb.ts';

const Input = z.strictObject({ setId: z.string(), zone: z.string().optional() });

export type RestoredSet = {
  instanceId: string;
  setId: string;
  /** The instance that the set was cut from. */
  from: string | null;
  volumes: { volumeId: string; snapshotId: string | null; device: string }[];
  /** Snapshots of the set that were left out: deleted, though they could be had back. */
  inRecycleBin: string[];
};

/** As the volume was; provisioned rates are not in a snapshot, so those types become gp3. */
function shapeOf({ volume_type, size_gib }: SnapshotRow): VolumeShape {
  const type = volume_type === 'io1' || volume_type === 'io2' ? 'gp3' : volume_type;
  return checkVolumeShape({ type, sizeGiB: size_gib, iops: undefined, throughput: undefined });
}

/** A new instance with a volume from each snapshot of the set, attached as the originals were. */
export const restoreSet = verb(Input, async (input, call): Promise<RestoredSet> => {
  const setId = parseId('set', input.setId);
  if (setId === undefined)
    throw new ApiError('InvalidSetID.Malformed', `Invalid id: "${input.setId}" (expecting "set-...")`);
  await call.permit();
  const { catalog } = call.services;
  const zone = input.zone ?? call.zones[0];
  if (!call.zones.includes(zone))
    throw new ApiError('InvalidParameterValue', `zone '${zone}' is not one of ${call.zones.join(', ')}`);
  const all = await catalog
    .selectFrom('snapshots')
    .selectAll()
    .where('set_id', '=', setId)
    .where('account_id', '=', call.caller.accountId)
    .where('region', '=', call.region)
    .orderBy('device_name')
    .execute();
  const snapshots = all.filter(({ binned_at }) => binned_at === null);
  const inRecycleBin = all.filter(({ binned_at }) => binned_at !== null).map(({ snapshot_id }) => snapshot_id);
  if (snapshots.length === 0) {
    const where = inRecycleBin.length === 0 ? '' : ` Its snapshots are in the Recycle Bin: ${inRecycleBin.join(', ')}.`;
    throw new ApiError('InvalidSet.NotFound', `The set '${setId}' does not exist.${where}`);
  }
  const archived = snapshots.filter(isArchived).map(({ snapshot_id }) => snapshot_id);
  if (archived.length > 0) {
    const which = archived.join(', ');
    throw new ApiError('IncorrectState', `Snapshots of the set '${setId}' are archived; restore them first: ${which}`);
  }
  const pending = snapshots.find((snapshot) => snapshot.state !== 'completed');
  if (pending !== undefined) {
    throw new ApiError(
      'IncorrectState',
      `The set '${setId}' is in the '${pending.state}' state; it must be completed.`,
    );
  }
  const set = await catalog
    .selectFrom('snapshot_sets')
    .selectAll()
    .where('set_id', '=', setId)
    .executeTakeFirstOrThrow();
  const plans: EncryptionPlan[] = [];
  for (const snapshot of snapshots) {
    plans.push(await planEncryption(call, { encrypted: undefined, kmsKeyId: undefined }, snapshot));
  }
  const root = snapshots.find((snapshot) => snapshot.is_root === 1);
  const [instanceId] = await launch(call, {
    count: 1,
    imageId: EMPTY_IMAGE_ID,
    instanceType: 'm1.small',
    zone,
    rootDeviceName: root?.device_name ?? '/dev/xvda',
    devices: snapshots.map((snapshot, index) => ({
      deviceName: snapshot.device_name ?? '/dev/sdf',
      shape: shapeOf(snapshot),
      source: snapshot,
      encryption: plans[index],
      deleteOnTermination: snapshot.is_root === 1,
    })),
    instanceTags: new Map([['Name', `restored from ${setId}`]]),
    volumeTags: new Map(),
    clientToken: undefined,
    protected: false,
  });
  const volumes = await catalog
    .selectFrom('attachments')
    .innerJoin('volumes', 'volumes.volume_id', 'attachments.volume_id')
    .select(['volumes.volume_id', 'volumes.snapshot_id', 'attachments.device_name'])
    .where('attachments.instance_id', '=', instanceId)
    .orderBy('attachments.device_name')
    .execute();
  return {
    instanceId,
    setId,
    from: set.instance_id,
    volumes: volumes.map((volume) => ({
      volumeId: volume.volume_id,
      snapshotId: volume.snapshot_id,
      device: volume.device_name,
    })),
    inRecycleBin,
  };
});
