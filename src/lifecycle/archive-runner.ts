import { archivesOf, deleteArchive, putArchive } from '../catalog/archive.ts';
import { type CatalogTransaction, isCatalogError } from '../catalog/catalog.ts';
import { imageOf } from '../catalog/images.ts';
import { retireRoot } from '../catalog/retired-roots.ts';
import type { SnapshotArchiveRow, SnapshotRow } from '../catalog/schema.ts';
import type { ObjectStore } from '../objects/object-store.ts';
import type { Captured, CaptureProgress } from '../snapshots/capture.ts';
import { recordKey } from '../snapshots/snapshot-record.ts';
import type { SnapshotId } from '../types/ids.ts';
import { DAY_MILLISECONDS, GIB, type Sha256 } from '../types/units.ts';
import type { LifecycleOptions } from './options.ts';
import { isPassing } from './passing-errors.ts';
import type { ResourceLocks } from './resource-locks.ts';
import type { SnapshotRecords } from './snapshot-records.ts';
import type { StoreOwner } from './store-owner.ts';
import type { UploadGate } from './upload-gate.ts';

const RETRY_MILLISECONDS = 300;

/** A move that is under way. */
type Move = { snapshot: SnapshotRow; archive: SnapshotArchiveRow };

/**
 * Moves snapshots to the archive, whole, each into a folder of its own; and back. Where a snapshot was, it stays until it is
 * where it goes, has been read there, and has its record there: cut short, a move begins again.
 */
export class ArchiveRunner {
  readonly #options: LifecycleOptions;
  readonly #locks: ResourceLocks;
  readonly #uploads: UploadGate;
  readonly #records: SnapshotRecords;
  readonly #owner: StoreOwner;
  /** Of the moves that are under way. */
  readonly #progress = new Map<SnapshotId, CaptureProgress | undefined>();
  /** Kicked since they began: the next move may have been asked for before the one before had ended. */
  readonly #kicked = new Set<SnapshotId>();
  /** The manifests by which moves to the archive read. */
  readonly #reading = new Map<SnapshotId, Sha256>();

  constructor(
    options: LifecycleOptions,
    locks: ResourceLocks,
    uploads: UploadGate,
    records: SnapshotRecords,
    owner: StoreOwner,
  ) {
    this.#options = options;
    this.#locks = locks;
    this.#uploads = uploads;
    this.#records = records;
    this.#owner = owner;
  }

  /** There is a move to be made, as the catalog says. */
  kick(snapshotId: SnapshotId): void {
    if (this.#progress.has(snapshotId)) {
      this.#kicked.add(snapshotId);
      return;
    }
    this.#progress.set(snapshotId, undefined);
    void this.#run(snapshotId)
      .catch((error: Error) => {
        if (!this.#options.dataPlane.stopping) this.#options.log('error', `${snapshotId}: ${error.message}`);
      })
      .finally(() => {
        this.#progress.delete(snapshotId);
        if (this.#kicked.delete(snapshotId)) this.kick(snapshotId);
      });
  }

  /** After a start: moves that were cut short begin again. */
  async recover(): Promise<void> {
    const { catalog, archive, log } = this.#options;
    if (archive !== undefined) return this.resume();
    const { number } = await catalog
      .selectFrom('snapshot_archives')
      .select(({ fn }) => fn.countAll<number>().as('number'))
      .where(({ or, eb }) => or([eb('root', 'is not', null), eb('status', '=', 'in-progress')]))
      .executeTakeFirstOrThrow();
    if (number > 0) log('warn', `${number} snapshots are in an archive, or on their way: give its --archive-store`);
  }

  /** Begins moves that were not begun, or cut short; once a minute, too, for some may have to wait. */
  async resume(): Promise<void> {
    const { catalog, archive } = this.#options;
    if (archive === undefined) return;
    const moves = await catalog
      .selectFrom('snapshot_archives')
      .select('snapshot_id')
      .where('status', '=', 'in-progress')
      .execute();
    for (const { snapshot_id } of moves) this.kick(snapshot_id);
  }

  /** @returns whether it is of a move, and not of a snapshot that is being made */
  reportProgress(snapshotId: SnapshotId, progress: CaptureProgress): boolean {
    if (!this.#progress.has(snapshotId)) return false;
    this.#progress.set(snapshotId, progress);
    return true;
  }

  /** A snapshot was deleted: a move of it ends soon, and what the archive has of it goes, soon or later. */
  forget(snapshotId: SnapshotId): void {
    const { dataPlane, log } = this.#options;
    if (this.#progress.has(snapshotId)) dataPlane.cancelRecode(snapshotId);
    void this.removeDeleted().catch((error: Error) =>
      log('warn', `${snapshotId} is still in the archive: ${error.message}`),
    );
  }

  progressOf(snapshotId: SnapshotId): CaptureProgress | undefined {
    return this.#progress.get(snapshotId);
  }

  /** What must stay in the object store as it is, whatever becomes of the snapshots meanwhile. */
  rootsBeingRead(): Sha256[] {
    return [...this.#reading.values()];
  }

  /** Ends restores whose time is over: the archive has those snapshots all the time. */
  async endRestores(): Promise<void> {
    const { catalog, now, log } = this.#options;
    const over = (snapshotId?: SnapshotId) => {
      const query = catalog
        .selectFrom('snapshot_archives')
        .select('snapshot_id')
        .where('status', '=', 'completed')
        .where('root', 'is not', null)
        .where('restored_until', '<=', now().toISOString());
      return snapshotId === undefined ? query : query.where('snapshot_id', '=', snapshotId);
    };
    for (const { snapshot_id } of await over().execute()) {
      await this.#locks.hold([snapshot_id], async () => {
        // It may have been made to last longer as we waited.
        if ((await over(snapshot_id).executeTakeFirst()) === undefined) return;
        await catalog.transaction().execute(async (transaction) => {
          await this.#leaveStore(transaction, snapshot_id);
          await transaction
            .updateTable('snapshot_archives')
            .set({ restored_until: null })
            .where('snapshot_id', '=', snapshot_id)
            .execute();
        });
        log('info', `${snapshot_id} is in the archive alone again`);
      });
    }
  }

  /** Removes from the archive what is not needed there any more. */
  async removeDeleted(): Promise<void> {
    const { catalog, archive } = this.#options;
    if (archive === undefined) return;
    const deleted = await catalog.selectFrom('deleted_archives').selectAll().execute();
    // A copy of this server has the same snapshots there: only the one that owns the object store takes any away.
    if (deleted.length > 0) await this.#owner.require();
    for (const { snapshot_id } of deleted) {
      // What a move that is about to end still brings there must not stay for ever.
      if (this.#progress.has(snapshot_id)) continue;
      await this.#locks.hold([snapshot_id], async () => {
        const noted = catalog.selectFrom('deleted_archives').selectAll().where('snapshot_id', '=', snapshot_id);
        // It may be on its way there once more: that begins with an empty folder, too.
        if ((await noted.executeTakeFirst()) === undefined) return;
        await removeArchived(archive, snapshot_id);
        await catalog.deleteFrom('deleted_archives').where('snapshot_id', '=', snapshot_id).execute();
      });
    }
  }

  async #run(snapshotId: SnapshotId): Promise<void> {
    const { dataPlane, log } = this.#options;
    while (!dataPlane.stopping) {
      const move = await this.#moveOf(snapshotId);
      // Deleted, or ended otherwise.
      if (move === undefined) return;
      try {
        // A move to the archive empties the folder first, which may be the owner's. Where that cannot be told now, in a minute.
        await this.#owner.require();
      } catch (error) {
        log('warn', `${snapshotId}: its ${move.archive.operation} has to wait: ${(error as Error).message}`);
        return;
      }
      try {
        // A move to the archive brings nothing into the object store, and may take days: no collection need wait for it.
        if (move.archive.operation === 'archival') await this.#archive(move);
        else await this.#uploads.upload('snapshot', () => this.#restore(move));
        // What it does not take now is written later (see refreshStale).
        await this.#records
          .refresh([snapshotId])
          .catch((error: Error) => log('warn', `${snapshotId}: ${error.message}`));
        return;
      } catch (error) {
        if (dataPlane.stopping) return;
        if (!isPassing(error) && !isCatalogError(error)) {
          await this.#fail(snapshotId, move, (error as Error).message);
          return;
        }
        await new Promise((resolve) => setTimeout(resolve, RETRY_MILLISECONDS));
      }
    }
  }

  async #moveOf(snapshotId: SnapshotId): Promise<Move | undefined> {
    const { catalog } = this.#options;
    const archive = (await archivesOf(catalog, [snapshotId])).get(snapshotId);
    const snapshot = await catalog
      .selectFrom('snapshots')
      .selectAll()
      .where('snapshot_id', '=', snapshotId)
      .executeTakeFirst();
    if (archive?.status !== 'in-progress' || snapshot === undefined) return undefined;
    return { snapshot, archive };
  }

  async #archive(move: Move): Promise<void> {
    const { archive: place, catalog, now } = this.#options;
    const { snapshot } = move;
    if (place === undefined) throw new Error('the server has no --archive-store');
    if (snapshot.root === null) throw new Error('the snapshot has no bytes in the object store');
    // What a move that was cut short has left.
    await removeArchived(place, snapshot.snapshot_id);
    this.#reading.set(snapshot.snapshot_id, snapshot.root);
    const copying = this.#copy(move, snapshot.root, 'to-archive');
    const { root } = await copying.finally(() => this.#reading.delete(snapshot.snapshot_id));
    const archive = { ...move.archive, archived_at: now().toISOString() };
    // Before the catalog: from then on, nothing but this says what the archive has.
    await this.#records.writeArchived(snapshot, archive, root);
    await catalog.transaction().execute(async (transaction) => {
      if (!(await isUnderWay(transaction, move.archive))) return;
      // Registered since the move was asked for.
      const imageId = await imageOf(transaction, snapshot.snapshot_id);
      if (imageId !== undefined) throw new Error(`the snapshot is in use by ${imageId}`);
      await putArchive(transaction, { ...archive, root, status: 'completed' });
      await this.#leaveStore(transaction, snapshot.snapshot_id);
    });
  }

  async #restore(move: Move): Promise<void> {
    const { catalog, now } = this.#options;
    const { snapshot, archive } = move;
    if (archive.root === null) throw new Error('the archive does not have the snapshot');
    const { root, storedBytes } = await this.#copy(move, archive.root, 'from-archive');
    await catalog.transaction().execute(async (transaction) => {
      if (!(await isUnderWay(transaction, archive))) return;
      await transaction
        .updateTable('snapshots')
        .set({ root, stored_bytes: storedBytes })
        .where('snapshot_id', '=', snapshot.snapshot_id)
        .execute();
      await this.#records.markStale(transaction, [snapshot.snapshot_id]);
      await endRestore(transaction, archive, now());
    });
  }

  async #copy({ snapshot }: Move, root: Sha256, to: 'to-archive' | 'from-archive'): Promise<Captured> {
    const { dataPlane, keys } = this.#options;
    const key = (await keys.open(snapshot.data_key_id))?.bytes;
    const { snapshot_id: snapshotId, size_gib } = snapshot;
    return dataPlane.recode({ snapshotId, sizeBytes: size_gib * GIB, source: { root, key }, key, move: to });
  }

  /** The archive has it: its record, its manifest and its bytes in the store are needed no more, but by who reads them now. */
  async #leaveStore(transaction: CatalogTransaction, snapshotId: SnapshotId): Promise<void> {
    const { root } = await transaction
      .selectFrom('snapshots')
      .select('root')
      .where('snapshot_id', '=', snapshotId)
      .executeTakeFirstOrThrow();
    if (root !== null) await retireRoot(transaction, root, this.#options.now());
    await transaction
      .updateTable('snapshots')
      .set({ root: null, stored_bytes: 0 })
      .where('snapshot_id', '=', snapshotId)
      .execute();
    await this.#records.markStale(transaction, [snapshotId]);
  }

  async #fail(snapshotId: SnapshotId, { archive }: Move, reason: string): Promise<void> {
    const { catalog, log } = this.#options;
    await catalog.transaction().execute(async (transaction) => {
      if (!(await isUnderWay(transaction, archive))) return;
      log('error', `${snapshotId}: its ${archive.operation} failed: ${reason}`);
      await transaction
        .updateTable('snapshot_archives')
        .set({ status: 'failed', detail: reason })
        .where('snapshot_id', '=', snapshotId)
        .execute();
      if (archive.operation === 'archival') await deleteArchive(transaction, snapshotId);
    });
  }
}

/** A restore has its bytes: for good, and then the archive needs none; or until so many days from now. */
export async function endRestore(
  transaction: CatalogTransaction,
  archive: SnapshotArchiveRow,
  now: Date,
): Promise<void> {
  const done = { ...archive, status: 'completed' as const, detail: '' };
  if (archive.operation === 'permanent-restore') {
    await putArchive(transaction, { ...done, root: null, restored_until: null });
    await deleteArchive(transaction, archive.snapshot_id);
  } else {
    const until = new Date(now.getTime() + (archive.restore_days ?? 0) * DAY_MILLISECONDS);
    await putArchive(transaction, { ...done, restored_until: until.toISOString() });
  }
}

/** Whether it is still that move, of a snapshot that is still there. */
async function isUnderWay(transaction: CatalogTransaction, archive: SnapshotArchiveRow): Promise<boolean> {
  const now = (await archivesOf(transaction, [archive.snapshot_id])).get(archive.snapshot_id);
  return now?.status === 'in-progress' && now.operation === archive.operation && now.started_at === archive.started_at;
}

/** Removes all that the archive has of a snapshot; done again, it removes the rest. */
async function removeArchived(archive: ObjectStore, snapshotId: SnapshotId): Promise<void> {
  // Its record first: there must be none of what is there in part.
  await archive.remove([recordKey(snapshotId)]);
  await archive.removeFolder(snapshotId);
}
