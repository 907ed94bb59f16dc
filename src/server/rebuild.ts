import { existsSync, renameSync, rmSync } from 'node:fs';
import { archivesOf, deleteArchive, isArchived, putArchive } from '../catalog/archive.ts';
import { type Catalog, type CatalogTransaction, openCatalog } from '../catalog/catalog.ts';
import type { SnapshotRow } from '../catalog/schema.ts';
import { putLock, removeLock } from '../catalog/snapshot-locks.ts';
import { putTags, removeTags } from '../catalog/tags.ts';
import { KEYRING_KEY, Keyring } from '../keys/keyring.ts';
import { StoreOwner } from '../lifecycle/store-owner.ts';
import { ObjectNotFoundError, type ObjectStore } from '../objects/object-store.ts';
import { nodeKey } from '../snapshots/manifest-node.ts';
import { listSnapshotRecords, RECORDS_PREFIX, type SnapshotRecord } from '../snapshots/snapshot-record.ts';
import type { Sha256 } from '../types/units.ts';
import { NodeDisk } from '../volumes/node-disk.ts';
import { fetchCatalog } from './catalog-backup.ts';
import { dataPaths, takeDataDirectory } from './data-directory.ts';
import { archiveRowOf, lockRowOf, rowOf } from './recorded-rows.ts';
import { type RevivedVolume, revive } from './revive.ts';

/** So many records are read in a moment, and are few enough to be read once more. */
const RECORDS_OF_A_COMMIT = 500;

export type Rebuilt = {
  snapshots: number;
  sets: number;
  known: number;
  /** Sets of which the bucket has a part: the others were deleted, or it was lost while their records were written. */
  partialSets: { setId: string; snapshots: number; of: number }[];
  unreadable: { key: string; why: string }[];
  /** The copy of the catalog that was found in the bucket, and the volumes that came back by it. */
  catalog: string | null;
  volumes: RevivedVolume[];
};

/**
 * Brings back, into a data directory's catalog, every completed snapshot that the bucket holds: with its tags, its set,
 * its owner, and with whom it is shared. Those that the catalog has, and that are where it has them, are left as they are, so it may be done again. The
 * bucket belongs to this directory's server from then on.
 *
 * Where the directory has no catalog yet, and the bucket has a copy of one, that is where it begins: users, instances and
 * volumes' definitions come back as well (see revive).
 * @param snapshotsOnly leaves the copy of the catalog where it is
 * @param archive has the archived snapshots; without it, those that the copy of the catalog has there are left as they are
 * @throws when a server is using the data directory
 */
export async function rebuild(
  dataDir: string,
  store: ObjectStore,
  snapshotsOnly: boolean,
  onRecord: () => void,
  archive?: ObjectStore,
): Promise<Rebuilt> {
  const lock = takeDataDirectory(dataDir);
  try {
    const paths = dataPaths(dataDir);
    // A copy is put right beside its place, and put there when it is: one that a kill leaves half-way would have volumes
    // that are on no disk, and no second rebuild would know.
    const beside = `${paths.catalog}.rebuilding`;
    rmSync(beside, { force: true });
    removeLogs(beside);
    const isNew = !existsSync(paths.catalog);
    // Of a catalog that is gone: its log would be applied to the new one.
    if (isNew) removeLogs(paths.catalog);
    const rebuilt: Rebuilt = {
      snapshots: 0,
      sets: 0,
      known: 0,
      partialSets: [],
      unreadable: [],
      catalog: null,
      volumes: [],
    };
    if (isNew && !snapshotsOnly) {
      const { key, unreadable } = await fetchCatalog(beside, store);
      rebuilt.catalog = key ?? null;
      rebuilt.unreadable.push(...unreadable);
    }
    const isCopy = rebuilt.catalog !== null;
    const catalog = await openCatalog(isCopy ? beside : paths.catalog);
    try {
      const recorded = await bringBackAll(catalog, store, archive, isCopy, rebuilt, onRecord);
      if (isCopy) {
        const someUnreadable = rebuilt.unreadable.some(({ key }) => key.startsWith(RECORDS_PREFIX));
        await forgetDeleted(catalog, recorded, archive !== undefined, someUnreadable);
        rebuilt.volumes = await revive(catalog, store);
      }
      // The keys of encrypted snapshots; of use only with the passphrase or key file that protects them.
      const fetched = await Keyring.fetch(new NodeDisk(), paths.keyring, store).catch((error: Error) => error.message);
      if (fetched !== 'fetched' && fetched !== 'none') {
        const another = `${paths.keyring} is another keyring than the bucket's; what was encrypted under that one cannot be read. Move it away and do this again to have the bucket's`;
        rebuilt.unreadable.push({ key: KEYRING_KEY, why: fetched === 'another' ? another : fetched });
      }
      await new StoreOwner(catalog, store).takeOver();
    } finally {
      await catalog.destroy();
    }
    if (isCopy) {
      renameSync(beside, paths.catalog);
      await new NodeDisk().syncDirectory(dataDir);
    }
    return rebuilt;
  } finally {
    lock.close();
  }
}

/** What SQLite keeps beside a database while it is open, or was killed. */
function removeLogs(database: string): void {
  for (const suffix of ['-wal', '-shm']) rmSync(`${database}${suffix}`, { force: true });
}

/** @returns the snapshots whose records could be read */
async function bringBackAll(
  catalog: Catalog,
  store: ObjectStore,
  archive: ObjectStore | undefined,
  isCopy: boolean,
  rebuilt: Rebuilt,
  onRecord: () => void,
): Promise<Set<string>> {
  const recorded = new Set<string>();
  let batch: SnapshotRecord[] = [];
  let bring = (transaction: CatalogTransaction, record: SnapshotRecord): Promise<void> =>
    bringBack(transaction, store, record, isCopy, rebuilt);
  // Some in one step, for each is a sync: a rebuild that is cut short is taken up by the next.
  const commit = async (): Promise<void> => {
    const some = batch;
    batch = [];
    await catalog.transaction().execute(async (transaction) => {
      for (const each of some) await bring(transaction, each);
    });
  };
  const members = new Map<string, { snapshots: number; of: number }>();
  const deleted = await catalog.selectFrom('deleted_records').select('snapshot_id').execute();
  const isDeleted = new Set<string>(deleted.map((row) => row.snapshot_id));
  const bringAllOf = async (from: ObjectStore): Promise<void> => {
    for await (const found of listSnapshotRecords(from)) {
      onRecord();
      if (found.record === undefined) {
        rebuilt.unreadable.push({ key: found.key, why: found.why });
        continue;
      }
      const { record } = found;
      // The server removes it when it starts.
      if (isDeleted.has(record.snapshotId)) continue;
      batch.push(record);
      if (batch.length === RECORDS_OF_A_COMMIT) await commit();
      // One that is restored from the archive for a while has two.
      if (recorded.has(record.snapshotId)) continue;
      recorded.add(record.snapshotId);
      const set = members.get(record.setId) ?? { snapshots: 0, of: 0 };
      members.set(record.setId, {
        snapshots: set.snapshots + 1,
        of: Math.max(set.of, record.setSnapshotIds.length),
      });
    }
    await commit();
  };
  await bringAllOf(store);
  const stored = new Set(recorded);
  bring = (transaction, record) =>
    bringBackArchived(transaction, record, stored.has(record.snapshotId), isCopy, rebuilt);
  if (archive !== undefined) await bringAllOf(archive);
  for (const [setId, { snapshots, of }] of members) {
    if (snapshots < of) rebuilt.partialSets.push({ setId, snapshots, of });
  }
  return recorded;
}

/**
 * Brings back a snapshot that the archive has.
 * @param isStored the object store has a record of it, too: then that says what the archive should have
 */
async function bringBackArchived(
  transaction: CatalogTransaction,
  record: SnapshotRecord,
  isStored: boolean,
  isCopy: boolean,
  rebuilt: Rebuilt,
): Promise<void> {
  const row = { ...rowOf(record), root: null };
  const { snapshot_id } = row;
  const known = (await archivesOf(transaction, [snapshot_id])).has(snapshot_id);
  if (isStored) {
    // Restored for good, and not yet removed there.
    if (!known) await deleteArchive(transaction, snapshot_id);
    return;
  }
  if (known && !isCopy) rebuilt.known += 1;
  else {
    rebuilt.snapshots += 1;
    await putBack(transaction, record, row, rebuilt);
  }
}

/** @param isCopy the catalog is older than the bucket */
async function bringBack(
  transaction: CatalogTransaction,
  store: ObjectStore,
  record: SnapshotRecord,
  isCopy: boolean,
  rebuilt: Rebuilt,
): Promise<void> {
  // Taken for the object store, it would be this server's, with snapshots of which it has nothing where it looks.
  if (record.archive?.root === record.root && record.dataBlocks > 0) {
    throw new Error(`${store.url} is an archive (it says so of ${record.snapshotId}): give it with --archive-store`);
  }
  const row = rowOf(record);
  const { snapshot_id } = row;
  const known = await transaction
    .selectFrom('snapshots')
    .select(['state', 'root'])
    .where('snapshot_id', '=', snapshot_id)
    .executeTakeFirst();
  // A catalog that was put back from an older copy may name a manifest that was written anew since, and is gone.
  const isWhole = known?.state === 'completed' && (isCopy || !(await isMoved(store, known.root, row.root)));
  if (isWhole) rebuilt.known += 1;
  else rebuilt.snapshots += 1;
  if (isWhole && !isCopy) return;
  await putBack(transaction, record, row, rebuilt);
}

/** Has the catalog say what a record does. @param row the snapshot's, by it */
async function putBack(
  transaction: CatalogTransaction,
  record: SnapshotRecord,
  row: SnapshotRow,
  rebuilt: Rebuilt,
): Promise<void> {
  const { snapshot_id, set_id } = row;
  const known = await transaction
    .selectFrom('snapshots')
    .select('snapshot_id')
    .where('snapshot_id', '=', snapshot_id)
    .executeTakeFirst();
  if (known === undefined) {
    if (await insertSet(transaction, record, row)) rebuilt.sets += 1;
    if (record.encryption !== undefined) {
      const { dataKeyId, kmsKeyArn, wrapped } = record.encryption;
      await transaction
        .insertInto('data_keys')
        .values({ data_key_id: dataKeyId, kms_key_arn: kmsKeyArn, wrapped })
        .onConflict((conflict) => conflict.doNothing())
        .execute();
    }
    await transaction.insertInto('snapshots').values(row).execute();
  } else {
    // It may have been completed since the catalog was saved, or its manifest written anew and the old one be gone.
    const { root, data_blocks, completed_at, binned_at, binned_until } = row;
    await transaction
      .updateTable('snapshots')
      .set({ state: 'completed', root, data_blocks, completed_at, boundary: null, state_message: '' })
      .set({ binned_at, binned_until })
      .where('snapshot_id', '=', snapshot_id)
      .execute();
    await transaction.updateTable('snapshot_sets').set({ state: 'completed' }).where('set_id', '=', set_id).execute();
    // And nobody may use it who was shut out since.
    await removeTags(transaction, snapshot_id);
    await removeLock(transaction, snapshot_id);
    const archived = await transaction
      .deleteFrom('snapshot_archives')
      .where('snapshot_id', '=', snapshot_id)
      .executeTakeFirst();
    // On its way there, or restored for good, when the catalog was saved.
    if (archived.numDeletedRows > 0n && record.archive === undefined) await deleteArchive(transaction, snapshot_id);
    await transaction.deleteFrom('snapshot_permissions').where('snapshot_id', '=', snapshot_id).execute();
  }
  const tags = new Map(record.tags.map(({ key, value }) => [key, value]));
  const { account_id, region } = row;
  const owner = { resourceId: snapshot_id, resourceType: 'snapshot' as const, accountId: account_id, region };
  await putTags(transaction, owner, tags);
  if (record.lock !== undefined) await putLock(transaction, lockRowOf(record.lock, snapshot_id));
  if (record.archive !== undefined) await putArchive(transaction, archiveRowOf(record.archive, snapshot_id));
  for (const grantee of record.sharedWith) {
    await transaction.insertInto('snapshot_permissions').values({ snapshot_id, grantee }).execute();
  }
}

/** Whether a snapshot's manifest is no longer where the catalog has it, but where its record does. */
async function isMoved(store: ObjectStore, known: Sha256 | null, recorded: Sha256 | null): Promise<boolean> {
  if (known === null || known === recorded) return false;
  return store.get(nodeKey(known)).then(
    () => false,
    (error: unknown) => {
      if (error instanceof ObjectNotFoundError) return true;
      throw error;
    },
  );
}

/** @returns whether it was not there yet */
async function insertSet(transaction: CatalogTransaction, record: SnapshotRecord, row: SnapshotRow): Promise<boolean> {
  const { account_id, region, set_id, started_at, description } = row;
  const set = await transaction
    .insertInto('snapshot_sets')
    .values({
      set_id,
      account_id,
      region,
      instance_id: record.instanceId,
      description,
      started_at,
      hold_milliseconds: 0,
      state: 'completed',
    })
    .onConflict((conflict) => conflict.doNothing())
    .executeTakeFirst();
  return Number(set.numInsertedOrUpdatedRows ?? 0) > 0;
}

/** Snapshots that the saved catalog has and the bucket no more: deleted since. */
async function forgetDeleted(
  catalog: Catalog,
  recorded: ReadonlySet<string>,
  hasArchive: boolean,
  someUnreadable: boolean,
): Promise<void> {
  // A record that cannot be read may be any of them.
  if (someUnreadable) return;
  const completed = await catalog
    .selectFrom('snapshots')
    .select(['snapshot_id', 'state', 'root'])
    .where('state', '=', 'completed')
    .execute();
  await catalog.transaction().execute(async (transaction) => {
    for (const { snapshot_id, ...snapshot } of completed) {
      if (recorded.has(snapshot_id)) continue;
      // It was not looked for where its record is.
      if (!hasArchive && isArchived(snapshot)) continue;
      await removeTags(transaction, snapshot_id);
      await transaction.deleteFrom('image_devices').where('snapshot_id', '=', snapshot_id).execute();
      await transaction.deleteFrom('snapshots').where('snapshot_id', '=', snapshot_id).execute();
    }
  });
}
