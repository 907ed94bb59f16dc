import type { VolumeRow } from '../../catalog/schema.ts';
import type { VolumeId } from '../../types/ids.ts';
import { errors } from '../errors.ts';
import { firstMissing } from '../identifiers.ts';
import type { Call } from '../operation.ts';

/** @throws ApiError InvalidVolume.NotFound when the caller has no such volume */
export async function findVolume(call: Call, volumeId: VolumeId): Promise<VolumeRow> {
  const [volume] = await findVolumes(call, [volumeId]);
  return volume;
}

/** @throws ApiError InvalidVolume.NotFound for the first that the caller has not */
export async function findVolumes(call: Call, ids: readonly VolumeId[]): Promise<VolumeRow[]> {
  const rows = await call.services.catalog
    .selectFrom('volumes')
    .selectAll()
    .where('volume_id', 'in', [...ids])
    .where('account_id', '=', call.caller.accountId)
    .where('region', '=', call.region)
    .orderBy('volume_id')
    .execute();
  const missing = firstMissing(ids, rows, (row) => row.volume_id);
  if (missing !== undefined) throw errors.noVolume(missing);
  return rows;
}

/** A page of the caller's volumes, by id. */
export function volumesAfter(call: Call, after: string, most: number): Promise<VolumeRow[]> {
  return call.services.catalog
    .selectFrom('volumes')
    .selectAll()
    .where('account_id', '=', call.caller.accountId)
    .where('region', '=', call.region)
    .where('volume_id', '>', after as VolumeId)
    .orderBy('volume_id')
    .limit(most)
    .execute();
}
