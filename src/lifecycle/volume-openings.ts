import { sql } from 'kysely';
import type { Catalog } from '../catalog/catalog.ts';
import type { VolumeOpening } from '../dataplane/messages.ts';
import type { DataKeys } from '../keys/data-keys.ts';
import type { VolumeId } from '../types/ids.ts';
import { asEpoch, type EpochNumber, GIB } from '../types/units.ts';

/**
 * What workers must know to open volumes (see VolumeOpening), in the order of the ids. Two questions to the catalog,
 * however many volumes: a cut asks for all of its set.
 * @param known of a moment ago: whose keys need not be asked for again
 * @throws when there is no such volume, or its key cannot be had
 */
export async function volumeOpenings(
  catalog: Catalog,
  keys: DataKeys,
  volumeIds: readonly VolumeId[],
  known: readonly VolumeOpening[] = [],
): Promise<VolumeOpening[]> {
  const rows = await catalog.selectFrom('volumes').selectAll().where('volume_id', 'in', volumeIds).execute();
  const volumes = new Map(rows.map((row) => [row.volume_id, row]));
  const pending = await pendingCuts(catalog, volumeIds);
  return Promise.all(
    volumeIds.map(async (volumeId) => {
      const volume = volumes.get(volumeId);
      if (volume === undefined) throw new Error(`the catalog has no volume ${volumeId}`);
      const before = known.find((each) => each.volumeId === volumeId);
      const keyOf = async (): Promise<Uint8Array | undefined> => (await keys.open(volume.data_key_id))?.bytes;
      const originKeyOf = async (): Promise<Uint8Array | undefined> => (await keys.open(volume.origin_key_id))?.bytes;
      const origin = volume.hydrated === 1 ? undefined : (volume.origin_root ?? undefined);
      return {
        volumeId,
        sizeBytes: volume.size_gib * GIB,
        origin,
        key: before === undefined ? await keyOf() : before.key,
        originKey: origin === undefined ? undefined : before === undefined ? await originKeyOf() : before.originKey,
        base: asEpoch(volume.base_boundary),
        pendingCuts: pending.get(volumeId) ?? [],
      };
    }),
  );
}

/** Of each volume that has any, oldest first. */
export async function pendingCuts(
  catalog: Catalog,
  volumeIds: readonly VolumeId[],
): Promise<Map<VolumeId, EpochNumber[]>> {
  const rows = await catalog
    .selectFrom('snapshots')
    .select(['volume_id', 'boundary'])
    .where('volume_id', 'in', volumeIds)
    // As the index of the pending ones has it; the others have no boundary.
    .where('state', '=', sql.lit('pending'))
    .where('boundary', 'is not', null)
    .orderBy('boundary')
    .execute();
  const pending = new Map<VolumeId, EpochNumber[]>();
  for (const { volume_id, boundary } of rows) {
    if (boundary === null) continue;
    const cuts = pending.get(volume_id);
    if (cuts === undefined) pending.set(volume_id, [boundary]);
    else cuts.push(boundary);
  }
  return pending;
}
