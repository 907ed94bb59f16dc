import { realPatience } from '../objects/patience.ts';
import { type Damage, damagedFor, type VerifiedSnapshot, verifySnapshots } from '../snapshots/verify.ts';
import { knownId, parseId } from '../types/ids.ts';
import type { Sha256 } from '../types/units.ts';
import type { Bases } from './bases.ts';
import { LastTime } from './last-time.ts';
import type { LifecycleOptions } from './options.ts';

const READ_PATIENCE_MILLISECONDS = 60_000;
const DAY_MILLISECONDS = 24 * 60 * 60 * 1000;

export type ScrubSettings = {
  /** How often everything is read, in days; 0 for never. */
  everyDays: number;
  bytesPerSecond: number;
};

export type ScrubFigures = { runs: number; bytes: number; damaged: number };

/**
 * Reads in the background, slowly, everything that snapshots name, and checks it against its hashes: damage is to be
 * found while there is still something to mend it from.
 */
export class Scrubber {
  readonly #options: LifecycleOptions;
  readonly #settings: ScrubSettings;
  readonly #bases: Bases;
  readonly #scrubbed: LastTime;
  #running = false;
  readonly figures: ScrubFigures = { runs: 0, bytes: 0, damaged: 0 };

  constructor(options: LifecycleOptions, settings: ScrubSettings, bases: Bases) {
    this.#options = options;
    this.#settings = settings;
    this.#bases = bases;
    this.#scrubbed = new LastTime(options.catalog, 'scrubbed-at');
  }

  /** Begins a run where one is due; it goes on by itself. */
  async runWhenDue(): Promise<void> {
    const { now, log } = this.#options;
    if (this.#settings.everyDays === 0 || this.#running) return;
    const last = await this.#scrubbed.since(now());
    if (now().getTime() - last < this.#settings.everyDays * DAY_MILLISECONDS) return;
    this.#running = true;
    void this.run()
      .catch((error: Error) => log('warn', `scrubbing: ${error.message}`))
      .finally(() => {
        this.#running = false;
      });
  }

  /**
   * What volumes' next snapshots would be stored on top of is read, too, and given up where it is damaged.
   * @returns what is damaged, and who is affected; of snapshots that were deleted meanwhile, nothing
   */
  async run(): Promise<Damage[]> {
    const { store, dataPlane, log } = this.#options;
    const snapshots = await this.#whatIsNamed();
    const begun = performance.now();
    const abort = new AbortController();
    let counted = 0;
    const patience = realPatience(READ_PATIENCE_MILLISECONDS);
    const { damage } = await verifySnapshots(
      store,
      snapshots,
      patience,
      (snapshotId) => this.#rootOf(snapshotId),
      async (bytes) => {
        this.figures.bytes += bytes - counted;
        counted = bytes;
        if (dataPlane.stopping) abort.abort(new Error('the server stops'));
        const due = (bytes / this.#settings.bytesPerSecond) * 1000;
        const early = due - (performance.now() - begun);
        if (early > 0) await new Promise((resolve) => setTimeout(resolve, early).unref());
      },
      { signal: abort.signal },
    );
    const damaged = damagedFor(damage);
    const roots = snapshots.filter(({ snapshotId }) => damaged.has(snapshotId)).map(({ root }) => root);
    if (roots.length > 0) await this.#bases.forgetDamaged(new Set(roots));
    for (const { object, what, lost, affected } of damage) {
      const who = affected.map(({ snapshotId, blocks }) => `${snapshotId} (${blocks.length} blocks)`).join(', ');
      if (lost) log('error', `scrubbing found damage in ${object}: ${what}; needed by ${who}`);
      else log('warn', `scrubbing could not read ${object}: ${what}; needed by ${who}`);
    }
    this.figures.runs += 1;
    this.figures.damaged = damage.filter(({ lost }) => lost).length;
    await this.#scrubbed.remember(this.#options.now());
    return damage;
  }

  /** Completed snapshots, and bases of volumes that are none of theirs. */
  async #whatIsNamed(): Promise<VerifiedSnapshot[]> {
    const { catalog, keys, now } = this.#options;
    const snapshots = await catalog
      .selectFrom('snapshots')
      .select(['snapshot_id as id', 'volume_id', 'started_at', 'root', 'data_key_id'])
      .where('state', '=', 'completed')
      .execute();
    const bases = await catalog
      .selectFrom('volumes')
      .select(['volume_id as id', 'volume_id', 'base_root as root', 'data_key_id'])
      .where('base_root', 'is not', null)
      .where('base_root', 'not in', (q) => q.selectFrom('snapshots').select('root').where('root', 'is not', null))
      .execute();
    const named: VerifiedSnapshot[] = [];
    const latest = now().toISOString();
    for (const { id, root, data_key_id, volume_id, started_at } of [
      ...snapshots,
      ...bases.map((base) => ({ ...base, started_at: latest })),
    ]) {
      if (root === null) continue;
      // What is under a key that cannot be had is left for another time.
      const key = await keys.open(data_key_id).catch(() => null);
      if (key !== null) named.push({ snapshotId: id, volumeId: volume_id, startTime: started_at, root, key });
    }
    return named;
  }

  async #rootOf(id: string): Promise<Sha256 | undefined> {
    const { catalog } = this.#options;
    const snapshotId = parseId('snap', id);
    const row =
      snapshotId === undefined
        ? await catalog
            .selectFrom('volumes')
            .select('base_root as root')
            .where('volume_id', '=', knownId('vol', id))
            .executeTakeFirst()
        : await catalog.selectFrom('snapshots').select('root').where('snapshot_id', '=', snapshotId).executeTakeFirst();
    return row?.root ?? undefined;
  }
}
