import type { SnapshotRow } from '../../catalog/schema.ts';
import { withDeadline } from '../../types/deadline.ts';
import type { SnapshotId } from '../../types/ids.ts';
import type { Call } from '../operation.ts';

/** So long a call waits for the object store: what it has changed is changed, whatever that says. */
const STORE_MILLISECONDS = 5000;

/**
 * The bucket has what the catalog says of completed snapshots, too, for a day when nothing but the bucket is left.
 * Writes the records that were marked as stale, soon or later.
 */
export function refreshRecords(call: Call, snapshotIds: readonly SnapshotId[]): Promise<void> {
  const refreshed = call.services.lifecycle.records.refresh(snapshotIds);
  return soonOrLater(
    call,
    `${snapshotIds.join(', ')}: changed, the records in the object store will be later`,
    refreshed,
  );
}

/** Removes the record of a snapshot that the catalog has as deleted, soon or later. */
export function removeRecord(call: Call, { snapshot_id, set_id }: SnapshotRow): Promise<void> {
  const removed = call.services.lifecycle.records.remove(snapshot_id, set_id);
  return soonOrLater(call, `${snapshot_id} is deleted, its record in the object store will be later`, removed);
}

async function soonOrLater(call: Call, later: string, work: Promise<void>): Promise<void> {
  await withDeadline(STORE_MILLISECONDS, 'the store', work).catch((error: Error) => {
    call.services.log('warn', `${later}: ${error.message}`);
  });
}
