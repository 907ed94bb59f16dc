import { sql } from 'kysely';
import type { VolumeRow } from '../catalog/schema.ts';
import { removeTags } from '../catalog/tags.ts';
import { Together } from '../catalog/together.ts';
import { allOf } from '../types/all-of.ts';
import type { VolumeId } from '../types/ids.ts';
import { GIB } from '../types/units.ts';
import type { HydrationRunner } from './hydration-runner.ts';
import type { LifecycleOptions } from './options.ts';
import { isPassing } from './passing-errors.ts';
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

  /** Makes the files of volumes that the catalog has as `creating`, in their order: workers get them by turns. */
  async create(volumeIds: readonly VolumeId[]): Promise<void> {
    const { catalog } = this.#options;
    const rows = await catalog.selectFrom('volumes').selectAll().where('volume_id', 'in', volumeIds).execute();
    const byId = new Map(rows.map((row) => [row.volume_id, row]));
    const volumes = volumeIds.flatMap((volumeId) => byId.get(volumeId) ?? []);
    await allOf(volumes, (volume) => this.#makeFiles(volume));
    // One commit for all: each is a sync, for which the whole server waits.
    await catalog
      .updateTable('volumes')
      .set((update) => ({
        state: update
          .case()
          .when('volume_id', 'in', update.selectFrom('attachments').select('attachments.volume_id'))
          .then(sql.lit('in-use' as const))
          .else(sql.lit('available' as const))
          .end(),
      }))
      .where('volume_id', 'in', volumeIds)
      // Whatever else has become of one meanwhile, it is not to come back.
      .where('state', '=', 'creating')
      .execute();
    for (const { volume_id, origin_root } of volumes) if (origin_root !== null) this.#hydrations.kick(volume_id);
  }

  async #makeFiles(volume: VolumeRow): Promise<void> {
    const { dataPlane, keys } = this.#options;
    const restored = volume.origin_root !== null;
    const key = await keys.open(volume.data_key_id);
    // Restored under another key than its snapshot's: no block that is stored can be part of its own snapshots.
    const baseless = restored && volume.base_root === null;
    const sizeBytes = volume.size_gib * GIB;
    await dataPlane.create({ volumeId: volume.volume_id, sizeBytes, restored, baseless, key: key?.bytes });
  }

  /**
   * Carries out the modification that the catalog has as `modifying`, if any: the volume grows while clients use it.
   * @throws what passes (see isPassing) when it cannot be done now: it stays `modifying`
   */
  async modify(volumeId: VolumeId): Promise<void> {
    const { catalog, dataPlane, now } = this.#options;
    const modification = await catalog
      .selectFrom('volume_modifications')
      .selectAll()
      .where('volume_id', '=', volumeId)
      .where('state', '=', 'modifying')
      .executeTakeFirst();
    if (modification === undefined) return;
    try {
      await dataPlane.grow(volumeId, modification.target_size_gib * GIB);
    } catch (error) {
      if (isPassing(error)) throw error;
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

  /** Removes those of the volumes that the catalog has as `deleting` and of which no pending snapshot needs any bytes. */
  async reap(volumeIds: readonly VolumeId[]): Promise<void> {
    const { catalog, dataPlane } = this.#options;
    const states = await Promise.all(volumeIds.map((volumeId) => this.#stateOf.ask(volumeId)));
    const deleting = volumeIds.filter((_, index) => states[index] === 'deleting');
    if (deleting.length === 0) return;
    const owed = await pendingCuts(catalog, deleting);
    const free = deleting.filter((volumeId) => !owed.has(volumeId));
    const removed: VolumeId[] = [];
    try {
      await allOf(free, async (volumeId) => {
        await dataPlane.remove(volumeId);
        removed.push(volumeId);
      });
    } finally {
      await this.#forget(removed);
    }
  }

  /** In one step: each commit is a sync, for which all of the server waits. */
  async #forget(volumeIds: readonly VolumeId[]): Promise<void> {
    if (volumeIds.length === 0) return;
    await this.#options.catalog.transaction().execute(async (transaction) => {
      for (const volumeId of volumeIds) await removeTags(transaction, volumeId);
      await transaction.deleteFrom('volume_modifications').where('volume_id', 'in', volumeIds).execute();
      await transaction.deleteFrom('volumes').where('volume_id', 'in', volumeIds).execute();
    });
  }

  async #statesOf(volumeIds: readonly VolumeId[]): Promise<(VolumeRow['state'] | undefined)[]> {
    const { catalog } = this.#options;
    const asked = catalog.selectFrom('volumes').select(['volume_id', 'state']).where('volume_id', 'in', volumeIds);
    const states = new Map((await asked.execute()).map((row) => [row.volume_id, row.state]));
    return volumeIds.map((volumeId) => states.get(volumeId));
  }
}
