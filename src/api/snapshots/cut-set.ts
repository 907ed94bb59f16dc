import { sql } from 'kysely';
import type { CatalogTransaction } from '../../catalog/catalog.ts';
import type { VolumeRow } from '../../catalog/schema.ts';
import type { VolumeOpening } from '../../dataplane/messages.ts';
import { KeyError } from '../../keys/key-service.ts';
import type { InstanceId, SnapshotId, VolumeId } from '../../types/ids.ts';
import { making, type Target, volumeArn } from '../authorization.ts';
import { errors } from '../errors.ts';
import type { Call } from '../operation.ts';
import type { Tags } from '../tags/tag-rules.ts';
import { insertSet } from './new-set.ts';

export type VolumeToCut = {
  volume: VolumeRow;
  device: { name: string; isRoot: boolean } | undefined;
  tags: Tags;
};

/** What a policy may ask of a snapshot that is to be made of a volume. */
export function makingSnapshot(call: Call, volume: VolumeRow, tags: Tags): Target[] {
  return making(call, 'snapshot', tags, {
    'ec2:Owner': call.caller.accountId,
    'ec2:ParentVolume': volumeArn(call.region, volume.account_id, volume.volume_id),
    'ec2:VolumeSize': volume.size_gib,
    'ec2:Encrypted': volume.data_key_id !== null,
    'ec2:SnapshotTime': call.services.now().toISOString(),
  });
}

export type CutOrder = {
  instanceId: InstanceId | null;
  description: string;
  volumes: readonly VolumeToCut[];
  /** What is to be recorded in the same step. */
  also?: (transaction: CatalogTransaction, snapshotIds: readonly SnapshotId[]) => Promise<void>;
};

/** Throughput-optimised and cold volumes may have one snapshot in progress; the others the limit of the settings. */
const ONE_AT_A_TIME = new Set(['st1', 'sc1']);

/**
 * Cuts volumes at one instant and records their snapshots: all of them, or none.
 * @returns the snapshots' ids, in the order of the volumes, and the one time they all have
 * @throws ApiError a limit, or InternalError when the volumes could not be cut
 */
export async function cutSet(call: Call, order: CutOrder): Promise<{ snapshotIds: SnapshotId[]; startedAt: Date }> {
  const { lifecycle, dataPlane } = call.services;
  const openings = await dataPlane.openingsOf(idsOf(order.volumes)).catch((error: Error) => {
    if (error instanceof KeyError) throw error;
    throw errors.cutFailed(error.message);
  });
  // One at a time: two calls must not both find room for the last snapshot. Innermost of all locks.
  const made = await lifecycle.locks.hold([`snapshot limits of ${call.caller.accountId}`], async () => {
    await checkLimits(call, order.volumes);
    return cutAndRecord(call, order, openings);
  });
  for (const { volume } of order.volumes) lifecycle.snapshots.kick(volume.volume_id);
  return made;
}

async function checkLimits(call: Call, volumes: readonly VolumeToCut[]): Promise<void> {
  const { catalog, limits } = call.services;
  if (limits.pendingSnapshotsPerVolume > 0) {
    const pending = await catalog
      .selectFrom('snapshots')
      .select(['volume_id', catalog.fn.countAll<number>().as('number')])
      .where('volume_id', 'in', idsOf(volumes))
      // In so many letters: the index of the pending ones knows itself by them. A volume may have thousands of others.
      .where('state', '=', sql.lit('pending'))
      .groupBy('volume_id')
      .execute();
    const numbers = new Map(pending.map(({ volume_id, number }) => [volume_id, number]));
    for (const { volume } of volumes) {
      const most = ONE_AT_A_TIME.has(volume.volume_type) ? 1 : limits.pendingSnapshotsPerVolume;
      if ((numbers.get(volume.volume_id) ?? 0) >= most) throw errors.tooManyPending(volume.volume_id, most);
    }
  }
  if (limits.snapshotGapSeconds > 0) await checkGap(call, volumes, limits.snapshotGapSeconds);
  if (limits.snapshotsPerAccount > 0) {
    const counted = await catalog
      .selectFrom('snapshot_counts')
      .select('number')
      .where('account_id', '=', call.caller.accountId)
      .executeTakeFirst();
    if ((counted?.number ?? 0) + volumes.length > limits.snapshotsPerAccount) {
      throw errors.snapshotLimit(limits.snapshotsPerAccount);
    }
  }
}

async function checkGap(call: Call, volumes: readonly VolumeToCut[], seconds: number): Promise<void> {
  const { catalog, now } = call.services;
  const recent = await catalog
    .selectFrom('snapshots')
    .select('volume_id')
    .where('volume_id', 'in', idsOf(volumes))
    .where('started_at', '>', new Date(now().getTime() - seconds * 1000).toISOString())
    .executeTakeFirst();
  if (recent !== undefined) throw errors.snapshotsTooOften(recent.volume_id, seconds);
}

function idsOf(volumes: readonly VolumeToCut[]): VolumeId[] {
  return volumes.map(({ volume }) => volume.volume_id);
}

async function cutAndRecord(
  call: Call,
  order: CutOrder,
  openings: readonly VolumeOpening[],
): Promise<{ snapshotIds: SnapshotId[]; startedAt: Date }> {
  const { catalog, dataPlane, now, holdDeadlineMilliseconds } = call.services;
  const { cuts, holdMilliseconds } = await dataPlane.cut(openings, holdDeadlineMilliseconds).catch((error: Error) => {
    throw errors.cutFailed(error.message);
  });
  const startedAt = now();
  try {
    const snapshots = order.volumes.map(({ volume, device, tags }) => {
      const cut = cuts.find((candidate) => candidate.volumeId === volume.volume_id);
      if (cut === undefined) throw new Error(`${volume.volume_id} was not cut`);
      return {
        volumeId: volume.volume_id,
        volumeType: volume.volume_type,
        sizeGiB: volume.size_gib,
        device,
        tags,
        encryption: volume,
        bytes: { boundary: cut.boundary },
      };
    });
    // In one transaction, and durable before the answer: all snapshots of the set exist, or none.
    const { instanceId, description } = order;
    const set = { instanceId, description, startedAt, holdMilliseconds, snapshots };
    const { snapshotIds } = await catalog.transaction().execute(async (transaction) => {
      const inserted = await insertSet(transaction, call, set);
      await order.also?.(transaction, inserted.snapshotIds);
      return inserted;
    });
    return { snapshotIds, startedAt };
  } catch (error) {
    // No snapshot came to be: the volumes need keep nothing.
    await Promise.allSettled(cuts.map((cut) => dataPlane.finishCut(cut, false)));
    throw error;
  }
}
