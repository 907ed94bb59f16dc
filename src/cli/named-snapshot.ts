import { folderOf } from '../objects/folder-store.ts';
import { ObjectNotFoundError, type ObjectStore } from '../objects/object-store.ts';
import { nodeKey } from '../snapshots/manifest-node.ts';
import { getSnapshotRecord, type SnapshotRecord } from '../snapshots/snapshot-record.ts';

/** The record of a snapshot that an operator has named. @throws with the store in which there is none */
export async function namedSnapshot(store: ObjectStore, snapshotId: string): Promise<SnapshotRecord> {
  return getSnapshotRecord(store, snapshotId).catch((error: unknown) => {
    if (!(error instanceof ObjectNotFoundError)) throw error;
    throw new Error(`${store.url} has no completed snapshot '${snapshotId}'; 'cleancut sets' lists them`);
  });
}

/**
 * The folder that has a snapshot's bytes, where the store that was named is a whole archive; undefined where the store itself
 * has them.
 */
export async function archiveFolderOf(store: ObjectStore, record: SnapshotRecord): Promise<string | undefined> {
  if (record.archive?.root !== record.root) return undefined;
  return store.get(nodeKey(record.root)).then(
    () => undefined,
    (error: unknown) => {
      if (error instanceof ObjectNotFoundError) return record.snapshotId;
      throw error;
    },
  );
}

/** The store that has a snapshot's bytes. */
export async function placeOf(store: ObjectStore, record: SnapshotRecord): Promise<ObjectStore> {
  const folder = await archiveFolderOf(store, record);
  return folder === undefined ? store : folderOf(store, folder);
}
