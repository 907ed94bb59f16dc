import { realPatience } from '../objects/patience.ts';
import { type Damage, verifySnapshots } from '../snapshots/verify.ts';
import { knownId } from '../types/ids.ts';
import type { Sha256 } from '../types/units.ts';
import type { LifecycleOptions } from './options.ts';

const READ_PATIENCE_MILLISECONDS = 60_000;
const DAY_MILLISECONDS = 24 * 60 * 60 * 1000;
const SCRUBBED_AT = 'scrubbed-at';

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
  #running = false;
  readonly figures: ScrubFigures = { runs: 0, bytes: 0, damaged: 0 };

  constructor(options: LifecycleOptions, settings: ScrubSettings) {
    this.#options = options;
    this.#settings = settings;
  }

  /** Begins a run where one is due; it goes on by itself. */
  async runWhenDue(): Promise<void> {
    const { now, log } = this.#options;
    if (this.#settings.everyDays === 0 || this.#running) return;
    const last = await this.#lastRun();
    if (last === undefined) {
      await this.#remember();
      return;
    }
    if (now().getTime() - last < this.#settings.everyDays * DAY_MILLISECONDS) return;
    this.#running = true;
    void this.run()
      .catch((error: Error) => log('warn', `scrubbing: ${error.message}`))
      .finally(() => {
        this.#running = false;
      });
  }

  /** @returns what is damaged, and who is affected; of snapshots that were deleted meanwhile, nothing */
  async run(): Promise<Damage[]> {
    const { catalog, store, keys, dataPlane, log } = this.#options;
    const rows = await catalog
      .selectFrom('snapshots')
      .select(['snapshot_id', 'root', 'data_key_id'])
      .where('state', '=', 'completed')
      .execute();
    const snapshots = [];
    for (const { snapshot_id, root, data_key_id } of rows) {
      if (root === null) continue;
      // What is under a key that cannot be had is left for another time.
      const key = await keys.open(data_key_id).catch(() => null);
      if (key !== null) snapshots.push({ snapshotId: snapshot_id, root, key });
    }
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
      abort.signal,
    );
    for (const { object, what, affected } of damage) {
      const who = affected.map(({ snapshotId, blocks }) => `${snapshotId} (${blocks.length} blocks)`).join(', ');
      log('error', `scrubbing found damage in ${object}: ${what}; needed by ${who}`);
    }
    this.figures.runs += 1;
    this.figures.damaged = damage.length;
    await this.#remember();
    return damage;
  }

  async #rootOf(snapshotId: string): Promise<Sha256 | undefined> {
    const row = await this.#options.catalog
      .selectFrom('snapshots')
      .select('root')
      .where('snapshot_id', '=', knownId('snap', snapshotId))
      .executeTakeFirst();
    return row?.root ?? undefined;
  }

  async #remember(): Promise<void> {
    const value = this.#options.now().toISOString();
    await this.#options.catalog
      .insertInto('secrets')
      .values({ name: SCRUBBED_AT, value })
      .onConflict((conflict) => conflict.column('name').doUpdateSet({ value }))
      .execute();
  }

  async #lastRun(): Promise<number | undefined> {
    const row = await this.#options.catalog
      .selectFrom('secrets')
      .select('value')
      .where('name', '=', SCRUBBED_AT)
      .executeTakeFirst();
    return row === undefined ? undefined : Date.parse(row.value);
  }
}
