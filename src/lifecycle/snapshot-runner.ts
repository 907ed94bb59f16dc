import { setTimeout as sleep } from 'node:timers/promises';
import { type Catalog, isCatalogError } from '../catalog/catalog.ts';
import type { SnapshotRow } from '../catalog/schema.ts';
import { isBaseLost } from '../dataplane/base-lost.ts';
import type { Captured, CaptureProgress } from '../snapshots/capture.ts';
import type { AccountId, SetId, SnapshotId, VolumeId } from '../types/ids.ts';
import { type EpochNumber, GIB } from '../types/units.ts';
import type { Bases } from './bases.ts';
import type { LifecycleOptions } from './options.ts';
import { isPassing } from './passing-errors.ts';
import { type OwedSnapshot, PendingSnapshots } from './pending-snapshots.ts';
import type { SnapshotRecords } from './snapshot-records.ts';
import type { UploadGate } from './upload-gate.ts';

type Options = LifecycleOptions & {
  uploads: UploadGate;
  records: SnapshotRecords;
  bases: Bases;
  onSnapshotEnded: (volumeId: VolumeId) => Promise<void>;
};

/** After a store that did not take records, or a catalog that did not take what is so: a full disk, mostly. */
const RETRY_MILLISECONDS = 1_000;
/** A worker comes back within this. */
const WORKER_RETRY_MILLISECONDS = 300;

/**
 * Brings pending snapshots to their end: `completed`, or `error` for the whole set.
 *
 * The cuts of one volume are stored one after another, oldest first, each incremental against the one before. A set is
 * completed in one step when the last of its snapshots is stored, so no one ever sees a part of a set as complete.
 */
export class SnapshotRunner {
  readonly #options: Options;
  readonly #catalog: Catalog;
  readonly #pending: PendingSnapshots;
  readonly #running = new Set<VolumeId>();
  readonly #kicked = new Set<VolumeId>();
  readonly #progress = new Map<SnapshotId, CaptureProgress>();
  /** Those of which something may be stored that only a journal names. */
  readonly #begun = new Set<SnapshotId>();

  constructor(options: Options) {
    this.#options = options;
    this.#catalog = options.catalog;
    this.#pending = new PendingSnapshots(options.catalog);
  }

  /** There is (or may be) a pending snapshot of the volume. */
  kick(volumeId: VolumeId): void {
    if (this.#running.has(volumeId)) {
      // It may be past its last look at the catalog: then it looks once more.
      this.#kicked.add(volumeId);
      return;
    }
    this.#running.add(volumeId);
    void this.#run(volumeId)
      .catch((error: Error) => {
        if (this.#options.dataPlane.stopping) return;
        this.#options.log('error', `${volumeId}: ${error.message}`);
        // What could not be written down of an end, either, is still owed.
        this.#kicked.add(volumeId);
        return sleep(RETRY_MILLISECONDS, undefined, { ref: false });
      })
      .finally(() => {
        this.#running.delete(volumeId);
        if (this.#kicked.delete(volumeId)) this.kick(volumeId);
      });
  }

  reportProgress(snapshotId: SnapshotId, progress: CaptureProgress): void {
    this.#progress.set(snapshotId, progress);
  }

  /** How far a pending snapshot has come; undefined where it has not begun. */
  progressOf(snapshotId: SnapshotId): CaptureProgress | undefined {
    return this.#progress.get(snapshotId);
  }

  #forget(snapshotId: SnapshotId): void {
    this.#progress.delete(snapshotId);
    this.#begun.delete(snapshotId);
  }

  /** Whether something of a pending snapshot may be in the store, and be named nowhere but in its upload's journal. */
  hasBegun(snapshotId: SnapshotId): boolean {
    return this.#begun.has(snapshotId);
  }

  /** What is being stored now, and what is left of it. */
  backlog(): { snapshots: number; blocks: number } {
    let blocks = 0;
    for (const { doneBlocks, totalBlocks } of this.#progress.values()) blocks += totalBlocks - doneBlocks;
    return { snapshots: this.#running.size, blocks };
  }

  /**
   * After a start: cuts that cannot be had end their sets; the others go on.
   * @returns `opening`: for each volume with pending cuts, when it has been opened. That may take as long as its key does
   */
  async recover(): Promise<{ opening: Promise<void>[] }> {
    const pending = await this.#catalog
      .selectFrom('snapshots')
      .selectAll()
      .where('boundary', 'is not', null)
      .orderBy('boundary')
      .execute();
    // By the last server: who knows how far it came with them.
    for (const { snapshot_id } of pending) this.#begun.add(snapshot_id);
    const sets = await this.#catalog
      .selectFrom('snapshot_sets')
      .select('set_id')
      .where('state', '=', 'pending')
      .execute();
    // Not waited for: the server is to serve, whatever the store says.
    for (const { set_id } of sets) void this.#completeSet(set_id);
    const byVolume = Map.groupBy(pending, (snapshot) => snapshot.volume_id);
    return { opening: [...byVolume].map(([volumeId, snapshots]) => this.#resume(volumeId, snapshots)) };
  }

  async #resume(volumeId: VolumeId, pending: readonly SnapshotRow[]): Promise<void> {
    const { dataPlane, log } = this.#options;
    try {
      for (const { boundary, reason } of await dataPlane.resumeCuts(volumeId)) {
        const lost = pending.find((snapshot) => snapshot.boundary === boundary);
        if (lost !== undefined) await this.#fail(lost, reason);
      }
    } catch (error) {
      // One that cannot be opened (its files are damaged, its key is away) must not keep the server from starting. Whoever
      // opens it later takes its cuts up with it, and what is wrong with it is what its uploads will say.
      log('error', `${volumeId} could not be opened for its pending snapshots: ${(error as Error).message}`);
    }
    this.kick(volumeId);
  }

  /** All bytes of an import are stored: its set can be completed. */
  async completeStored(snapshotId: SnapshotId): Promise<void> {
    const row = await this.#catalog
      .selectFrom('snapshots')
      .select('set_id')
      .where('snapshot_id', '=', snapshotId)
      .executeTakeFirst();
    this.#forget(snapshotId);
    if (row !== undefined) await this.#completeSet(row.set_id);
  }

  /** Ends a pending import in `error`; any other snapshot is left alone. */
  async failImport(snapshotId: SnapshotId, accountId: AccountId, reason: string): Promise<void> {
    const row = await this.#catalog
      .selectFrom('snapshots')
      .selectAll()
      .where('snapshot_id', '=', snapshotId)
      .where('account_id', '=', accountId)
      .where('state', '=', 'pending')
      .where('boundary', 'is', null)
      .where('root', 'is', null)
      .executeTakeFirst();
    if (row !== undefined) await this.#fail(row, reason);
  }

  /**
   * The volume has given a cut up: its set ends in `error` now, and not only when its upload, which may be waiting for the
   * store, comes to ask. (One that the catalog does not have yet hears of it then.)
   */
  async failCut(volumeId: VolumeId, boundary: EpochNumber, reason: string): Promise<void> {
    const snapshot = await this.#catalog
      .selectFrom('snapshots')
      .selectAll()
      .where('volume_id', '=', volumeId)
      .where('boundary', '=', boundary)
      .executeTakeFirst();
    if (snapshot !== undefined) await this.#fail(snapshot, reason);
  }

  /** Gives a pending snapshot up: deleted by its owner. What it owed passes to the volume's next. */
  async abandon(snapshot: SnapshotRow): Promise<void> {
    if (snapshot.boundary !== null) await this.#endCut(snapshot.volume_id, snapshot.boundary, false);
    this.#options.dataPlane.cancelRecode(snapshot.snapshot_id);
    this.#forget(snapshot.snapshot_id);
    // Not waited for: a store that does not answer is no matter of who deletes one.
    void this.#completeSet(snapshot.set_id);
    await this.#options.onSnapshotEnded(snapshot.volume_id);
    this.kick(snapshot.volume_id);
  }

  async #run(volumeId: VolumeId): Promise<void> {
    const { dataPlane } = this.#options;
    while (!dataPlane.stopping) {
      const owed = await this.#pending.next(volumeId);
      if (owed === undefined) return;
      const { snapshot, boundary, base } = owed;
      try {
        const sizeBytes = snapshot.size_gib * GIB;
        const order = { cut: { volumeId, boundary }, snapshotId: snapshot.snapshot_id, sizeBytes, base };
        // Until the catalog names the manifest, a collection would take what is uploaded for garbage.
        await this.#options.uploads.upload('snapshot', () => {
          this.#begun.add(snapshot.snapshot_id);
          return this.#store(owed, () => dataPlane.capture(order));
        });
      } catch (error) {
        if (dataPlane.stopping) return;
        if (isPassing(error)) {
          // The worker comes back, and its journal with it; so do the keys.
          await sleep(WORKER_RETRY_MILLISECONDS);
          continue;
        }
        const obstacle = obstacleIn(error);
        if (obstacle !== undefined) {
          // The bytes are in the store, or still where they were; the journal knows.
          this.#options.log('error', `${snapshot.snapshot_id} ${obstacle}, trying again: ${(error as Error).message}`);
          await sleep(RETRY_MILLISECONDS);
          continue;
        }
        if (isBaseLost(error)) await this.#options.bases.forget(volumeId, error.message);
        // Deleted, or failed with its set, while it was being stored: then this is only the echo.
        if (await this.#isOwed(snapshot.snapshot_id)) await this.#fail(snapshot, (error as Error).message);
        this.#forget(snapshot.snapshot_id);
      }
      await this.#options.onSnapshotEnded(volumeId);
    }
  }

  /**
   * Lets the volume go of a cut. A worker that has died meanwhile has let go already, and learns the rest from the
   * catalog when it opens the volume: no reason to leave the set unfinished.
   */
  async #endCut(volumeId: VolumeId, boundary: EpochNumber, isBase: boolean): Promise<void> {
    await this.#options.dataPlane.finishCut({ volumeId, boundary }, isBase).catch((error: Error) => {
      if (!this.#options.dataPlane.stopping) this.#options.log('warn', `${volumeId}: ${error.message}`);
    });
  }

  async #isOwed(snapshotId: SnapshotId): Promise<boolean> {
    const row = await this.#catalog
      .selectFrom('snapshots')
      .select('boundary')
      .where('snapshot_id', '=', snapshotId)
      .executeTakeFirst();
    return row !== undefined && row.boundary !== null;
  }

  async #store(owed: OwedSnapshot, capture: () => Promise<Captured>): Promise<void> {
    const { snapshot, boundary } = owed;
    const { endsSet, isBase } = await this.#pending.store(owed, capture);
    this.#forget(snapshot.snapshot_id);
    // After the commit: once the volume drops the history before this cut, the catalog must already have the new base.
    await this.#endCut(snapshot.volume_id, boundary, isBase);
    if (endsSet) await this.#completeSet(snapshot.set_id);
  }

  /**
   * Completes the set if all its snapshots are stored: the records in the bucket first, then the catalog in one step.
   * Where either does not take it now, that is tried until it does: the bytes are safe.
   */
  async #completeSet(setId: SetId): Promise<void> {
    try {
      // One at a time for each set: the last two snapshots of a set may be stored in the same moment, and the records must
      // say of it what the catalog says.
      await this.#options.records.setLocks.hold([setId], () => this.#completeSetNow(setId));
    } catch (error) {
      if (this.#options.dataPlane.stopping) return;
      this.#options.log('warn', `${setId} cannot be completed, trying again: ${(error as Error).message}`);
      setTimeout(() => {
        if (!this.#options.dataPlane.stopping) void this.#completeSet(setId);
      }, RETRY_MILLISECONDS).unref();
    }
  }

  async #completeSetNow(setId: SetId): Promise<void> {
    const owed = this.#catalog.selectFrom('snapshots').select('snapshot_id').where('set_id', '=', setId);
    if ((await owed.where('root', 'is', null).limit(1).executeTakeFirst()) !== undefined) return;
    const set = await this.#catalog
      .selectFrom('snapshot_sets')
      .selectAll()
      .where('set_id', '=', setId)
      .executeTakeFirst();
    if (set?.state !== 'pending') return;
    const snapshots = await this.#catalog.selectFrom('snapshots').selectAll().where('set_id', '=', setId).execute();
    const completedAt = this.#options.now().toISOString();
    await this.#options.records.write({ ...set, snapshots }, completedAt);
    await this.#catalog.transaction().execute(async (transaction) => {
      await transaction.updateTable('snapshot_sets').set({ state: 'completed' }).where('set_id', '=', setId).execute();
      await transaction
        .updateTable('snapshots')
        .set({ state: 'completed', completed_at: completedAt })
        .where('set_id', '=', setId)
        .execute();
    });
  }

  /** One snapshot of a set has failed: the whole set ends in `error`. */
  async #fail(snapshot: SnapshotRow, reason: string): Promise<void> {
    this.#options.log('error', `${snapshot.snapshot_id} of ${snapshot.volume_id} failed: ${reason}`);
    const owing = await this.#catalog.transaction().execute(async (transaction) => {
      const all = await transaction
        .selectFrom('snapshots')
        .selectAll()
        .where('set_id', '=', snapshot.set_id)
        .where('state', '=', 'pending')
        .execute();
      for (const { snapshot_id } of all) {
        const own = snapshot_id === snapshot.snapshot_id;
        const message = own ? reason : `Another snapshot of the set failed (${snapshot.snapshot_id}): ${reason}`;
        await transaction
          .updateTable('snapshots')
          .set({ state: 'error', state_message: message, boundary: null })
          .where('snapshot_id', '=', snapshot_id)
          .execute();
      }
      await transaction
        .updateTable('snapshot_sets')
        .set({ state: 'error' })
        .where('set_id', '=', snapshot.set_id)
        .execute();
      return all;
    });
    for (const { volume_id, boundary, snapshot_id } of owing) {
      this.#forget(snapshot_id);
      if (boundary === null) continue;
      await this.#endCut(volume_id, boundary, false);
      if (volume_id !== snapshot.volume_id) await this.#options.onSnapshotEnded(volume_id);
    }
  }
}

/** What is no fault of the snapshot, and ends when somebody makes room. */
function obstacleIn(error: unknown): string | undefined {
  if (isCatalogError(error)) return 'cannot be recorded';
  const { code } = error as NodeJS.ErrnoException;
  return code === 'EMFILE' || code === 'ENFILE' ? 'cannot be read, for want of open files' : undefined;
}
