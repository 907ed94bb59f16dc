import { keepOwnValue, ownValue } from '../catalog/own-values.ts';
import { realPatience } from '../objects/patience.ts';
import { type Damage, damagedFor, ReadBefore, type VerifiedSnapshot, verifySnapshots } from '../snapshots/verify.ts';
import { knownId, parseId } from '../types/ids.ts';
import { DAY_MILLISECONDS, type Sha256 } from '../types/units.ts';
import { allSnapshots } from './all-snapshots.ts';
import type { Bases } from './bases.ts';
import { LastTime } from './last-time.ts';
import type { LifecycleOptions } from './options.ts';

const READ_PATIENCE_MILLISECONDS = 60_000;
const NOTE_MILLISECONDS = 10_000;
/** Its name among what the server keeps for itself. */
const PROGRESS = 'scrub-progress';

export type ScrubSettings = {
  /** How often everything is read, in days; 0 for never. */
  everyDays: number;
  bytesPerSecond: number;
};

/** The last volume that the run under way has read (none: it has ended), and how many damaged objects it has found. */
type Progress = { after: string; damaged: number };

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
    // What the last server has found is still so, as far as anyone knows.
    if (this.figures.runs === 0) this.figures.damaged = (await this.#progress()).damaged;
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
   * Volume by volume: what is found is told, and where the next start is to go on is noted, after each. What volumes' next
   * snapshots would be stored on top of is read, too, and given up where it is damaged.
   * @returns what is damaged, and who is affected; of snapshots that were deleted meanwhile, nothing
   */
  async run(): Promise<Damage[]> {
    const { store, dataPlane } = this.#options;
    const begun = performance.now();
    const abort = new AbortController();
    const patience = realPatience(READ_PATIENCE_MILLISECONDS);
    const readBefore = new ReadBefore();
    const { after, damaged } = await this.#progress();
    const foundBefore = after === '' ? 0 : damaged;
    const lost = new Set<string>();
    const found: Damage[] = [];
    let readBytes = 0;
    let notedAt = begun;
    for (const [volumeId, snapshots] of await this.#whatIsNamed(after)) {
      let bytesOfVolume = 0;
      const onProgress = async (bytes: number): Promise<void> => {
        this.figures.bytes += bytes - bytesOfVolume;
        readBytes += bytes - bytesOfVolume;
        bytesOfVolume = bytes;
        if (dataPlane.stopping) abort.abort(new Error('the server stops'));
        const early = (readBytes / this.#settings.bytesPerSecond) * 1000 - (performance.now() - begun);
        if (early > 0) await new Promise((resolve) => setTimeout(resolve, early).unref());
      };
      const rootNow = (snapshotId: string): Promise<Sha256 | undefined> => this.#rootOf(snapshotId);
      const options = { signal: abort.signal, readBefore };
      const { damage } = await verifySnapshots(store, snapshots, patience, rootNow, onProgress, options);
      await this.#report(damage, snapshots);
      found.push(...damage);
      for (const { lost: isLost, object } of damage) if (isLost) lost.add(object);
      this.figures.damaged = foundBefore + lost.size;
      // Not of each of ten thousand small volumes: it is a sync.
      if (performance.now() - notedAt < NOTE_MILLISECONDS && damage.length === 0) continue;
      notedAt = performance.now();
      await this.#note({ after: volumeId, damaged: this.figures.damaged });
    }
    this.figures.runs += 1;
    this.figures.damaged = foundBefore + lost.size;
    await this.#note({ after: '', damaged: this.figures.damaged });
    await this.#scrubbed.remember(this.#options.now());
    return found;
  }

  async #report(damage: readonly Damage[], snapshots: readonly VerifiedSnapshot[]): Promise<void> {
    const { log } = this.#options;
    const damaged = damagedFor(damage);
    const roots = snapshots.filter(({ snapshotId }) => damaged.has(snapshotId)).map(({ root }) => root);
    if (roots.length > 0) await this.#bases.forgetDamaged(new Set(roots));
    for (const { object, what, lost, affected } of damage) {
      const who = affected.map(({ snapshotId, blocks }) => `${snapshotId} (${blocks.length} blocks)`).join(', ');
      if (lost) log('error', `scrubbing found damage in ${object}: ${what}; needed by ${who}`);
      else log('warn', `scrubbing could not read ${object}: ${what}; needed by ${who}`);
    }
  }

  /** Completed snapshots, and bases of volumes that are none of theirs: by volume, in the order of ids. */
  async #whatIsNamed(after: string): Promise<[string, VerifiedSnapshot[]][]> {
    const { catalog, keys, now, dataPlane } = this.#options;
    const bases = await catalog
      .selectFrom('volumes')
      .select(['volume_id', 'base_root as root', 'data_key_id'])
      .where('base_root', 'is not', null)
      .where('base_root', 'not in', (q) => q.selectFrom('snapshots').select('root').where('root', 'is not', null))
      .execute();
    const named: VerifiedSnapshot[] = [];
    const add = async (snapshot: Omit<VerifiedSnapshot, 'key'>, keyId: string | null): Promise<void> => {
      // What is under a key that cannot be had is left for another time.
      const key = await keys.open(keyId).catch(() => null);
      if (key !== null) named.push({ ...snapshot, key });
    };
    for await (const each of allSnapshots(catalog, () => dataPlane.afterHold())) {
      const { snapshot_id, volume_id, started_at, state, root, data_key_id } = each;
      if (state !== 'completed' || root === null) continue;
      await add({ snapshotId: snapshot_id, volumeId: volume_id, startTime: started_at, root }, data_key_id);
    }
    for (const { volume_id, root, data_key_id } of bases) {
      const base = { snapshotId: volume_id, volumeId: volume_id, startTime: now().toISOString() };
      if (root !== null) await add({ ...base, root }, data_key_id);
    }
    const byVolume = [...Map.groupBy(named, ({ volumeId }) => volumeId)];
    return byVolume.filter(([id]) => id > after).sort(([a], [b]) => (a < b ? -1 : 1));
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

  /** How far a run came that the end of a server cut short. */
  async #progress(): Promise<Progress> {
    const noted = await ownValue(this.#options.catalog, PROGRESS);
    return noted === undefined ? { after: '', damaged: 0 } : (JSON.parse(noted) as Progress);
  }

  #note(progress: Progress): Promise<void> {
    return keepOwnValue(this.#options.catalog, PROGRESS, JSON.stringify(progress));
  }
}
