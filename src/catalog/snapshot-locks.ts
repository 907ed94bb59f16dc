import type { SnapshotId } from '../types/ids.ts';
import type { Catalog } from './catalog.ts';
import type { SnapshotLockRow } from './schema.ts';

/** The locks that were put on snapshots, and not taken off; they may have expired. By snapshot. */
export async function locksOf(
  catalog: Catalog,
  snapshotIds: readonly SnapshotId[],
): Promise<Map<SnapshotId, SnapshotLockRow>> {
  if (snapshotIds.length === 0) return new Map();
  const rows = await catalog
    .selectFrom('snapshot_locks')
    .selectAll()
    .where('snapshot_id', 'in', [...snapshotIds])
    .execute();
  return new Map(rows.map((row) => [row.snapshot_id, row]));
}

/** Puts a lock on a snapshot, in the place of the one that it may have. */
export async function putLock(catalog: Catalog, lock: SnapshotLockRow): Promise<void> {
  await catalog
    .insertInto('snapshot_locks')
    .values(lock)
    .onConflict((conflict) => conflict.column('snapshot_id').doUpdateSet(lock))
    .execute();
}

export async function removeLock(catalog: Catalog, snapshotId: SnapshotId): Promise<void> {
  await catalog.deleteFrom('snapshot_locks').where('snapshot_id', '=', snapshotId).execute();
}
