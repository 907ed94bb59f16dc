import { archivesOf } from '../catalog/archive.ts';
import type { Catalog } from '../catalog/catalog.ts';
import { granteesOf } from '../catalog/permissions.ts';
import type { DataKeyRow, SnapshotArchiveRow, SnapshotLockRow, SnapshotRow } from '../catalog/schema.ts';
import { locksOf } from '../catalog/snapshot-locks.ts';
import { tagsOf } from '../catalog/tags.ts';
import { folderOf } from '../objects/folder-store.ts';
import type { ObjectStore } from '../objects/object-store.ts';
import {
  hasSnapshotRecord,
  putSnapshotRecord,
  recordedSnapshots,
  recordKey,
  removeSnapshotRecord,
  type SnapshotRecord,
} from '../snapshots/snapshot-record.ts';
import { allOf } from '../types/all-of.ts';
import { ConcurrencyLimit } from '../types/concurrency-limit.ts';
import type { InstanceId, SetId, SnapshotId } from '../types/ids.ts';
import type { Sha256 } from '../types/units.ts';
import { allSnapshots } from './all-snapshots.ts';
import { ResourceLocks } from './resource-locks.ts';

const RECORDS_AT_ONCE = 8;

/** A set, and all its snapshots. */
type WholeSet = { set_id: SetId; instance_id: InstanceId | null; snapshots: readonly SnapshotRow[] };

/**
 * The records of completed snapshots in the bucket: what `rebuild` has when the catalog is lost. They say what the
 * catalog says. What the archive has, has its record there: with all the others, and beside its bytes, so that its folder is a
 * store that can be read by itself.
 */
export class SnapshotRecords {
  /** By set: who changes what its snapshots' records say, and who writes them, does so one at a time. */
  readonly setLocks = new ResourceLocks();
  readonly #catalog: Catalog;
  readonly #store: ObjectStore;
  readonly #archive: ObjectStore | undefined;

  constructor(catalog: Catalog, store: ObjectStore, archive?: ObjectStore) {
    this.#catalog = catalog;
    this.#store = store;
    this.#archive = archive;
  }

  /** Writes those of a set that is about to be completed. */
  async write(set: WholeSet, completedAt: string): Promise<void> {
    const records = await this.#recordsOf(set, set.snapshots, completedAt);
    await someAtOnce(records, (record) => putSnapshotRecord(this.#store, record));
  }

  /**
   * Removes the record of a snapshot that the catalog has as deleted (in `deleted_records`, from the same commit on): it
   * must not come back from the bucket. Where the store does not do it now, it will be done later.
   */
  async remove(snapshotId: SnapshotId, setId: SetId): Promise<void> {
    // Not while the records of its set are being written, this one perhaps among them.
    await this.setLocks.hold([setId], async () => {
      await removeSnapshotRecord(this.#store, snapshotId);
      await this.#catalog.deleteFrom('deleted_records').where('snapshot_id', '=', snapshotId).execute();
    });
  }

  /**
   * Notes that records are to be written anew, in the transaction that changes what they say: whoever is killed after
   * it, or waits no longer for a silent store, leaves no record behind that says something old for ever.
   */
  async markStale(transaction: Catalog, snapshotIds: readonly SnapshotId[]): Promise<void> {
    for (const snapshot_id of snapshotIds) {
      await transaction
        .insertInto('stale_records')
        .values({ snapshot_id, changes: 1 })
        .onConflict((conflict) =>
          conflict.column('snapshot_id').doUpdateSet((q) => ({ changes: q('changes', '+', 1) })),
        )
        .execute();
    }
  }

  /** Writes those that are marked as stale anew. What the store does not take now will be written later. */
  refresh(snapshotIds: readonly SnapshotId[]): Promise<void> {
    return someAtOnce(snapshotIds, (id) => this.#refreshOne(id));
  }

  async #refreshOne(snapshotId: SnapshotId): Promise<void> {
    const row = await this.#catalog
      .selectFrom('snapshots')
      .select('set_id')
      .where('snapshot_id', '=', snapshotId)
      .executeTakeFirst();
    if (row === undefined) return;
    // One at a time: of two that write it, the last must be the one that has read last.
    await this.setLocks.hold([row.set_id], async () => {
      const mark = this.#catalog.selectFrom('stale_records').selectAll().where('snapshot_id', '=', snapshotId);
      const stale = await mark.executeTakeFirst();
      if (stale === undefined || !(await this.#refreshNow(snapshotId))) return;
      // Changed once more while it was being written, it stays marked: a crash now must not leave what was read before.
      const { changes } = stale;
      await this.#catalog
        .deleteFrom('stale_records')
        .where('snapshot_id', '=', snapshotId)
        .where('changes', '=', changes)
        .execute();
    });
  }

  /**
   * Writes the records that are still to be written anew, and removes those that are still to be removed.
   * @returns what is still to be done in the archive, and why
   */
  async refreshStale(): Promise<string[]> {
    const stale = await this.#catalog.selectFrom('stale_records').select('snapshot_id').execute();
    const waiting: string[] = [];
    await someAtOnce(stale, async ({ snapshot_id }) => {
      await this.#refreshOne(snapshot_id).catch((error: Error) => {
        if (!(error instanceof ArchiveAwayError)) throw error;
        waiting.push(error.message);
      });
    });
    const deleted = await this.#catalog.selectFrom('deleted_records').selectAll().execute();
    await someAtOnce(deleted, ({ snapshot_id, set_id }) => this.remove(snapshot_id, set_id));
    return waiting;
  }

  /**
   * A catalog that was put back from an older copy, or rebuilt while some records could not be read, does not know all
   * that the bucket holds: to it, what those snapshots need is garbage.
   * @throws when the bucket has the record of a snapshot that the catalog neither has nor has deleted
   */
  async requireAllKnown(rest: () => Promise<void>): Promise<void> {
    const recorded = await recordedSnapshots(this.#store);
    // Read after the bucket: a snapshot is in the catalog before its record is in the bucket.
    const known = new Set<string>();
    for await (const { snapshot_id } of allSnapshots(this.#catalog, rest)) known.add(snapshot_id);
    for (const id of recorded) if (!known.has(id)) await this.#requireDeleted(id);
  }

  /** Deleted as we looked: its record is still to be removed, or is gone by now. */
  async #requireDeleted(snapshotId: SnapshotId): Promise<void> {
    const deleted = await this.#catalog
      .selectFrom('deleted_records')
      .select('snapshot_id')
      .where('snapshot_id', '=', snapshotId)
      .executeTakeFirst();
    if (deleted !== undefined || !(await hasSnapshotRecord(this.#store, snapshotId))) return;
    throw new Error(
      `the object store has the record of ${snapshotId}, which this server's catalog does not know: nothing is collected, for its bytes would be garbage. Stop the server and run 'cleancut rebuild', which brings it back; or remove ${recordKey(snapshotId)} if it is not wanted`,
    );
  }

  /** @returns false where it has to wait for a server that has the archive */
  async #refreshNow(snapshotId: SnapshotId): Promise<boolean> {
    const snapshot = await this.#catalog
      .selectFrom('snapshots')
      .selectAll()
      .where('snapshot_id', '=', snapshotId)
      .executeTakeFirst();
    if (snapshot?.state !== 'completed') return true;
    const archive = (await archivesOf(this.#catalog, [snapshotId])).get(snapshotId);
    // Before the archive, which may be away: a collection must not wait for that.
    if (snapshot.root === null) await removeSnapshotRecord(this.#store, snapshotId);
    else await putSnapshotRecord(this.#store, await this.#recordOf(snapshot, archive, snapshot.root));
    if (archive?.root == null) return true;
    if (this.#archive === undefined) return false;
    await this.#putIntoArchive(snapshot, archive, archive.root).catch((error: Error) => {
      throw new ArchiveAwayError(`${snapshotId}: its record in the archive will be later: ${error.message}`);
    });
    return true;
  }

  /** Writes the record of a snapshot that has just been stored in the archive: before the catalog says so. */
  async writeArchived(snapshot: SnapshotRow, archive: SnapshotArchiveRow, root: Sha256): Promise<void> {
    await this.setLocks.hold([snapshot.set_id], () => this.#putIntoArchive(snapshot, { ...archive, root }, root));
  }

  async #putIntoArchive(snapshot: SnapshotRow, archive: SnapshotArchiveRow, root: Sha256): Promise<void> {
    if (this.#archive === undefined) throw new Error('the server has no --archive-store');
    const record = await this.#recordOf(snapshot, archive, root);
    for (const store of [folderOf(this.#archive, snapshot.snapshot_id), this.#archive]) {
      await putSnapshotRecord(store, record);
    }
  }

  /** @param root the snapshot's, in the store that the record is for */
  async #recordOf(
    snapshot: SnapshotRow,
    archive: SnapshotArchiveRow | undefined,
    root: Sha256,
  ): Promise<SnapshotRecord> {
    const set = await this.#catalog
      .selectFrom('snapshot_sets')
      .selectAll()
      .where('set_id', '=', snapshot.set_id)
      .executeTakeFirstOrThrow();
    const snapshots = await this.#catalog
      .selectFrom('snapshots')
      .selectAll()
      .where('set_id', '=', set.set_id)
      .execute();
    const completedAt = snapshot.completed_at ?? snapshot.started_at;
    const [record] = await this.#recordsOf({ ...set, snapshots }, [{ ...snapshot, root }], completedAt);
    if (archive?.root == null) return record;
    const { root: archiveRoot, archived_at, started_at, restored_until } = archive;
    const archived = { root: archiveRoot, since: archived_at ?? started_at, restoredUntil: restored_until };
    return { ...record, format: 5, archive: archived };
  }

  async #recordsOf(set: WholeSet, snapshots: readonly SnapshotRow[], completedAt: string): Promise<SnapshotRecord[]> {
    const ids = snapshots.map((snapshot) => snapshot.snapshot_id);
    const tags = await tagsOf(this.#catalog, ids);
    const grantees = await granteesOf(this.#catalog, ids);
    const keys = await this.#dataKeysOf(snapshots);
    const locks = await locksOf(this.#catalog, ids);
    return snapshots.map((snapshot) => {
      const { snapshot_id } = snapshot;
      const own = {
        tags: tags.get(snapshot_id),
        grantees: grantees.get(snapshot_id) ?? [],
        lock: locks.get(snapshot_id),
      };
      return recordOf(snapshot, set, own, completedAt, keys);
    });
  }

  async #dataKeysOf(snapshots: readonly SnapshotRow[]): Promise<Map<string, DataKeyRow>> {
    const ids = snapshots.flatMap(({ data_key_id }) => (data_key_id === null ? [] : [data_key_id]));
    if (ids.length === 0) return new Map();
    const rows = await this.#catalog.selectFrom('data_keys').selectAll().where('data_key_id', 'in', ids).execute();
    return new Map(rows.map((row) => [row.data_key_id, row]));
  }
}

/** The object store has all that it should. */
class ArchiveAwayError extends Error {
  override name = 'ArchiveAwayError';
}

/** Does something with each; what fails does not keep the others from it. @throws the first failure, when all have ended */
async function someAtOnce<Each>(all: readonly Each[], work: (each: Each) => Promise<void>): Promise<void> {
  const limit = new ConcurrencyLimit(RECORDS_AT_ONCE);
  // Nothing goes on behind the back of who tries again.
  await allOf(all, (each) => limit.run(() => work(each)));
}

/** What the catalog has of a snapshot in other tables. */
type OfSnapshot = {
  tags: ReadonlyMap<string, string> | undefined;
  grantees: readonly string[];
  lock: SnapshotLockRow | undefined;
};

function recordOf(
  snapshot: SnapshotRow,
  set: WholeSet,
  { tags, grantees, lock }: OfSnapshot,
  completionTime: string,
  dataKeys: ReadonlyMap<string, DataKeyRow>,
): SnapshotRecord {
  const key = dataKeys.get(snapshot.data_key_id ?? '');
  if (snapshot.data_key_id !== null && key === undefined)
    throw new Error(`the catalog has no data key for ${snapshot.snapshot_id}`);
  if (snapshot.root === null) throw new Error(`${snapshot.snapshot_id} is not stored`);
  return {
    format: formatOf(snapshot, key, lock),
    snapshotId: snapshot.snapshot_id,
    setId: set.set_id,
    setSnapshotIds: set.snapshots.map((each) => each.snapshot_id),
    ownerId: snapshot.account_id,
    region: snapshot.region,
    sharedWith: [...grantees],
    instanceId: set.instance_id,
    volumeId: snapshot.volume_id,
    parentSnapshotId: snapshot.parent_snapshot_id,
    volumeSizeGiB: snapshot.size_gib,
    volumeType: snapshot.volume_type,
    deviceName: snapshot.device_name,
    isRoot: snapshot.is_root === 1,
    description: snapshot.description,
    tags: [...(tags ?? [])].map(([key, value]) => ({ key, value })),
    startTime: snapshot.started_at,
    completionTime,
    root: snapshot.root,
    dataBlocks: snapshot.data_blocks,
    ...(key === undefined
      ? {}
      : { encryption: { dataKeyId: key.data_key_id, kmsKeyArn: key.kms_key_arn, wrapped: key.wrapped } }),
    ...(lock === undefined ? {} : { lock: recordedLock(lock) }),
    ...(snapshot.binned_at === null || snapshot.binned_until === null
      ? {}
      : { recycleBin: { since: snapshot.binned_at, until: snapshot.binned_until } }),
  };
}

/** The oldest that has words for what the record says. */
function formatOf(
  { binned_at }: SnapshotRow,
  key: DataKeyRow | undefined,
  lock: SnapshotLockRow | undefined,
): SnapshotRecord['format'] {
  if (binned_at !== null) return 4;
  if (lock !== undefined) return 3;
  return key === undefined ? 1 : 2;
}

function recordedLock(lock: SnapshotLockRow): SnapshotRecord['lock'] {
  return {
    mode: lock.mode,
    coolOffHours: lock.cool_off_hours,
    createdAt: lock.created_at,
    setAt: lock.set_at,
    durationDays: lock.duration_days,
    expiresAt: lock.expires_at,
  };
}
