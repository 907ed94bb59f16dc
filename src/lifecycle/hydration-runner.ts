import type { Catalog } from '../catalog/catalog.ts';
import type { DataPlane } from '../dataplane/data-plane.ts';
import { ConcurrencyLimit } from '../types/concurrency-limit.ts';
import type { VolumeId } from '../types/ids.ts';
import type { LifecycleOptions } from './options.ts';

const VOLUMES_AT_ONCE = 2;
const RETRY_MILLISECONDS = 5_000;
/** Twice as long after each failure, up to this: a snapshot of which something is lost fails for ever. */
const LONGEST_RETRY_MILLISECONDS = 5 * 60_000;
/** Who makes a volume attaches it and reads: those first reads shall not wait behind the rest of it. */
const GRACE_MILLISECONDS = 250;

/** Fetches, in the background, what restored volumes still have only in the object store. */
export class HydrationRunner {
  readonly #catalog: Catalog;
  readonly #dataPlane: DataPlane;
  readonly #log: LifecycleOptions['log'];
  readonly #limit = new ConcurrencyLimit(VOLUMES_AT_ONCE);
  readonly #running = new Set<VolumeId>();

  constructor(options: LifecycleOptions) {
    this.#catalog = options.catalog;
    this.#dataPlane = options.dataPlane;
    this.#log = options.log;
  }

  kick(volumeId: VolumeId): void {
    if (this.#running.has(volumeId)) return;
    this.#running.add(volumeId);
    const grace = new Promise((resolve) => setTimeout(resolve, GRACE_MILLISECONDS).unref());
    void grace.then(() => this.#hydrate(volumeId)).finally(() => this.#running.delete(volumeId));
  }

  async recover(): Promise<void> {
    const volumes = await this.#catalog
      .selectFrom('volumes')
      .select('volume_id')
      .where('hydrated', '=', 0)
      .where('state', 'in', ['available', 'in-use'])
      .execute();
    for (const { volume_id } of volumes) this.kick(volume_id);
  }

  /** Until it is done. One that fails has its pauses outside of the limit: it must not keep the others from theirs. */
  async #hydrate(volumeId: VolumeId): Promise<void> {
    let pause = RETRY_MILLISECONDS;
    while (!this.#dataPlane.stopping) {
      try {
        if (await this.#limit.run(() => this.#hydrateNow(volumeId))) return;
      } catch (error) {
        if (this.#dataPlane.stopping) return;
        this.#log('warn', `${volumeId} could not be hydrated, trying again: ${(error as Error).message}`);
        pause = Math.min(2 * pause, LONGEST_RETRY_MILLISECONDS);
      }
      await new Promise((resolve) => setTimeout(resolve, pause).unref());
    }
  }

  /** @returns whether there is nothing left to fetch */
  async #hydrateNow(volumeId: VolumeId): Promise<boolean> {
    const volume = await this.#catalog
      .selectFrom('volumes')
      .select(['state', 'hydrated'])
      .where('volume_id', '=', volumeId)
      .executeTakeFirst();
    if (volume === undefined || volume.hydrated === 1 || volume.state === 'deleting') return true;
    if (!(await this.#dataPlane.hydrate(volumeId))) return false;
    // After the worker has it all on disk: until then the snapshot's manifest is still needed.
    await this.#catalog.updateTable('volumes').set({ hydrated: 1 }).where('volume_id', '=', volumeId).execute();
    return true;
  }
}
