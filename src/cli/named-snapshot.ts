import { ObjectNotFoundError, type ObjectStore } from '../objects/object-store.ts';
import { getSnapshotRecord, type SnapshotRecord } from '../snapshots/snapshot-record.ts';

/** The record of a snapshot that an operator has named. @throws with the store in which there is none */
export async function namedSnapshot(store: ObjectStore, snapshotId: string): Promise<SnapshotRecord> {
  return getSnapshotRecord(store, snapshotId).catch((error: unknown) => {
    if (!(error instanceof ObjectNotFoundError)) throw error;
    throw new Error(`${store.url} has no completed snapshot '${snapshotId}'; 'cleancut sets' lists them`);
  });
}
