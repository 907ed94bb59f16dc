import { sql } from 'kysely';
import type { Catalog } from '../catalog/catalog.ts';
import type { VolumeRow } from '../catalog/schema.ts';
import { Together } from '../catalog/together.ts';
import type { VolumeOpening } from '../dataplane/messages.ts';
import type { DataKeys } from '../keys/data-keys.ts';
import type { VolumeId } from '../types/ids.ts';
import { asEpoch, type EpochNumber, GIB } from '../types/units.ts';

/** What workers must know to open volumes (see VolumeOpening). */
export class VolumeOpenings {
  readonly #catalog: Catalog;
  readonly #keys: DataKeys;
  /** The captures of a set ask for a volume each, at almost the same time. (Keys are asked for one by one: some take long.) */
  readonly #single = new Together((volumeIds: readonly VolumeId[]) => this.#lookUp(volumeIds));

  constructor(catalog: Catalog, keys: DataKeys) {
    this.#catalog = catalog;
    this.#keys = keys;
  }

  /**
   * In the order of the ids. Two questions to the catalog, however many volumes: a cut asks for all of its set.
   * @param known of a moment ago: whose keys need not be asked for again
   * @throws when there is no such volume, or its key cannot be had
   */
  async of(volumeIds: readonly VolumeId[], known: readonly VolumeOpening[] = []): Promise<VolumeOpening[]> {
    const found = volumeIds.length === 1 ? [await this.#single.ask(volumeIds[0])] : await this.#lookUp(volumeIds);
    return Promise.all(
      found.map(async ({ volume, cuts }) => {
        const before = known.find((each) => each.volumeId === volume.volume_id);
        const keyOf = async (): Promise<Uint8Array | undefined> => (await this.#keys.open(volume.data_key_id))?.bytes;
        const originKeyOf = async (): Promise<Uint8Array | undefined> =>
          (await this.#keys.open(volume.origin_key_id))?.bytes;
        const origin = volume.hydrated === 1 ? undefined : (volume.origin_root ?? undefined);
        return {
          volumeId: volume.volume_id,
          sizeBytes: volume.size_gib * GIB,
          origin,
          key: before === undefined ? await keyOf() : before.key,
          originKey: origin === undefined ? undefined : before === undefined ? await originKeyOf() : before.originKey,
          base: asEpoch(volume.base_boundary),
          pendingCuts: cuts,
        };
      }),
    );
  }

  async #lookUp(volumeIds: readonly VolumeId[]): Promise<{ volume: VolumeRow; cuts: EpochNumber[] }[]> {
    const rows = await this.#catalog.selectFrom('volumes').selectAll().where('volume_id', 'in', volumeIds).execute();
    const volumes = new Map(rows.map((row) => [row.volume_id, row]));
    const pending = await pendingCuts(this.#catalog, volumeIds);
    return volumeIds.map((volumeId) => {
      const volume = volumes.get(volumeId);
      if (volume === undefined) throw new Error(`the catalog has no volume ${volumeId}`);
      return { volume, cuts: pending.get(volumeId) ?? [] };
    });
  }
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
