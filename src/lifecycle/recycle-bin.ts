import type { Catalog } from '../catalog/catalog.ts';
import { deleteSnapshotRow } from '../catalog/delete-snapshot.ts';
import type { SnapshotId } from '../types/ids.ts';
import type { ResourceLocks } from './resource-locks.ts';

/**
 * Deletes for good what has been in the recycle bin for as long as it was to be. Its records in the bucket are to be removed
 * next (SnapshotRecords.refreshStale), its bytes by the next collection.
 * @returns what was deleted
 */
export async function emptyBin(catalog: Catalog, locks: ResourceLocks, now: Date): Promise<SnapshotId[]> {
  const expired = (from: Catalog) =>
    from.selectFrom('snapshots').select(['snapshot_id', 'set_id']).where('binned_until', '<=', now.toISOString());
  const deleted: SnapshotId[] = [];
  for (const snapshot of await expired(catalog).execute()) {
    const { snapshot_id } = snapshot;
    await locks.hold([snapshot_id], () =>
      catalog.transaction().execute(async (transaction) => {
        // Its owner may have taken it back as we waited.
        const still = await expired(transaction).where('snapshot_id', '=', snapshot_id).executeTakeFirst();
        if (still === undefined) return;
        await deleteSnapshotRow(transaction, snapshot);
        deleted.push(snapshot_id);
      }),
    );
  }
  return deleted;
}
