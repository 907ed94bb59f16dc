import type { VolumeId } from '../types/ids.ts';
import { NO_BASE, type Sha256 } from '../types/units.ts';
import type { LifecycleOptions } from './options.ts';

/**
 * What volumes' next snapshots are to be stored on top of. Where that is lost, or what it names is, the next snapshot holds
 * everything again: the volume has the bytes, and its snapshots must not go on naming what cannot be read.
 */
export class Bases {
  readonly #options: LifecycleOptions;

  constructor(options: LifecycleOptions) {
    this.#options = options;
  }

  /** Pending snapshots of the volume end in `error`, with the reason. */
  async forget(volumeId: VolumeId, reason: string): Promise<void> {
    const { catalog, dataPlane, log } = this.#options;
    log('warn', `${volumeId}: ${reason}`);
    // The catalog first: killed after it, the volume finds at its next opening that it has no history since such a base.
    await catalog
      .updateTable('volumes')
      .set({ base_boundary: NO_BASE, base_root: null })
      .where('volume_id', '=', volumeId)
      .execute();
    await dataPlane.forgetHistory(volumeId, reason);
  }

  /** Of all volumes whose base is one of these manifests. @returns which */
  async forgetDamaged(roots: ReadonlySet<Sha256>): Promise<VolumeId[]> {
    const { catalog, log } = this.#options;
    const rows = await catalog
      .selectFrom('volumes')
      .select(['volume_id', 'base_root'])
      .where('base_root', 'is not', null)
      .execute();
    const damaged = rows.filter(({ base_root }) => base_root !== null && roots.has(base_root));
    const reason = 'What was stored of the volume is damaged. Its next snapshot will hold everything.';
    for (const { volume_id } of damaged) {
      // One that cannot be opened now will forget when it is.
      await this.forget(volume_id, reason).catch((error: Error) => log('warn', `${volume_id}: ${error.message}`));
    }
    return damaged.map(({ volume_id }) => volume_id);
  }
}
