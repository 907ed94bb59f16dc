import type { VolumeRow } from '../catalog/schema.ts';
import { removeTags } from '../catalog/tags.ts';
import { Together } from '../catalog/together.ts';
import type { VolumeId } from '../types/ids.ts';
import { GIB } from '../types/units.ts';
import type { HydrationRunner } from './hydration-runner.ts';
import type { LifecycleOptions } from './options.ts';
import { pendingCuts } from './volume-openings.ts';

/** Makes volumes, lets them grow, and removes them. */
export class VolumeRunner {
  readonly #options: LifecycleOptions;
  readonly #hydrations: HydrationRunner;
  /** Asked at the end of each snapshot, and those of a set end at almost the same time. */
  readonly #stateOf = new Together((volumeIds: readonly VolumeId[]) => this.#statesOf(volumeIds));

  constructor(options: LifecycleOptions, hydrations: HydrationRunner) {
    this.#options = options;
    this.#hydrations = hydrations;
  }

  /** Makes the files of a volume that the catalog has as `creating`. */
  async create(volumeId: VolumeId): Promise<void> {
    const { catalog, dataPlane, keys } = this.#options;
    const volume = await catalog
      .selectFrom('volumes')
      .selectAll()
      .where('volume_id', '=', volumeId)
      .executeTakeFirstOrThrow();
    const restored = volume.origin_root !== null;
    const key = await keys.open(volume.data_key_id);
    // Restored under another key than its snapshot's: no block that is stored can be part of its own snapshots.
    const baseless = restored && volume.base_root === null;
    const sizeBytes = volume.size_gib * GIB;
    await dataPlane.create({ volumeId, sizeBytes, restored, baseless, key: key?.bytes });
    const attached = await catalog
      .selectFrom('attachments')
      .select('volume_id')
      .where('volume_id', '=', volumeId)
      .executeTakeFirst();
    await catalog
      .updateTable('volumes')
      .set({ state: attached === undefined ? 'available' : 'in-use' })
      .where('volume_id', '=', volumeId)
      .execute();
    if (restored) this.#hydrations.kick(volumeId);
  }

  /** Carries out the modification that the catalog has as `modifying`: the volume grows while clients use it. */
  async modify(volumeId: VolumeId): Promise<void> {
    const { catalog, dataPlane, now } = this.#options;
    const modification = await catalog
      .selectFrom('volume_modifications')
      .selectAll()
      .where('volume_id', '=', volumeId)
      .executeTakeFirstOrThrow();
    try {
      await dataPlane.grow(volumeId, modification.target_size_gib * GIB);
    } catch (error) {
      await catalog
        .updateTable('volume_modifications')
        .set({ state: 'failed', message: (error as Error).message, ended_at: now().toISOString() })
        .where('volume_id', '=', volumeId)
        .execute();
      return;
    }
    await catalog.transaction().execute(async (transaction) => {
      await transaction
        .updateTable('volumes')
        .set({
          size_gib: modification.target_size_gib,
          volume_type: modification.target_type,
          iops: modification.target_iops,
          throughput: modification.target_throughput,
        })
        .where('volume_id', '=', volumeId)
        .execute();
      await transaction
        .updateTable('volume_modifications')
        .set({ state: 'completed', ended_at: now().toISOString() })
        .where('volume_id', '=', volumeId)
        .execute();
    });
  }

  /** Removes a volume that the catalog has as `deleting`, once no pending snapshot needs its bytes. */
  async reap(volumeId: VolumeId): Promise<void> {
    const { catalog, dataPlane } = this.#options;
    if ((await this.#stateOf.ask(volumeId)) !== 'deleting' || (await pendingCuts(catalog, [volumeId])).size > 0) return;
    await dataPlane.remove(volumeId);
    await removeTags(catalog, volumeId);
    await catalog.deleteFrom('volumes').where('volume_id', '=', volumeId).execute();
  }

  async #statesOf(volumeIds: readonly VolumeId[]): Promise<(VolumeRow['state'] | undefined)[]> {
    const { catalog } = this.#options;
    const asked = catalog.selectFrom('volumes').select(['volume_id', 'state']).where('volume_id', 'in', volumeIds);
    const states = new Map((await asked.execute()).map((row) => [row.volume_id, row.state]));
    return volumeIds.map((volumeId) => states.get(volumeId));
  }
}
