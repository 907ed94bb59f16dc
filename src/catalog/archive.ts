import type { SnapshotId } from '../types/ids.ts';
import type { Catalog, CatalogTransaction } from './catalog.ts';
import type { SnapshotArchiveRow, SnapshotRow } from './schema.ts';

const IDS_AT_ONCE = 500;

/** Whether a snapshot is in the archive alone: there is nothing to read it from until it is restored. */
export function isArchived({ state, root }: Pick<SnapshotRow, 'state' | 'root'>): boolean {
  return state === 'completed' && root === null;
}

/** The last moves of snapshots to or from the archive, by snapshot; of those that had any. */
export async function archivesOf(
  catalog: Catalog,
  snapshotIds: readonly SnapshotId[],
): Promise<Map<SnapshotId, SnapshotArchiveRow>> {
  const found = new Map<SnapshotId, SnapshotArchiveRow>();
  for (let at = 0; at < snapshotIds.length; at += IDS_AT_ONCE) {
    const rows = await catalog
      .selectFrom('snapshot_archives')
      .selectAll()
      .where('snapshot_id', 'in', snapshotIds.slice(at, at + IDS_AT_ONCE))
      .execute();
    for (const row of rows) found.set(row.snapshot_id, row);
  }
  return found;
}

/** Notes a move, in the place of the one before. */
export async function putArchive(catalog: Catalog, archive: SnapshotArchiveRow): Promise<void> {
  await catalog
    .insertInto('snapshot_archives')
    .values(archive)
    .onConflict((conflict) => conflict.column('snapshot_id').doUpdateSet(archive))
    .execute();
}

/** Notes that what the archive has, or may have, of a snapshot is to be removed. */
export async function deleteArchive(transaction: CatalogTransaction, snapshotId: SnapshotId): Promise<void> {
  await transaction
    .insertInto('deleted_archives')
    .values({ snapshot_id: snapshotId })
    .onConflict((conflict) => conflict.doNothing())
    .execute();
}
