import type { CatalogTransaction } from './catalog.ts';
import type { SnapshotRow } from './schema.ts';
import { removeTags } from './tags.ts';

/** Deletes a snapshot, and notes that its record in the bucket is to be removed: killed after the commit, the next start knows. */
export async function deleteSnapshotRow(
  transaction: CatalogTransaction,
  { snapshot_id, set_id }: Pick<SnapshotRow, 'snapshot_id' | 'set_id'>,
): Promise<void> {
  await removeTags(transaction, snapshot_id);
  await transaction.deleteFrom('snapshots').where('snapshot_id', '=', snapshot_id).execute();
  await transaction.insertInto('deleted_records').values({ snapshot_id, set_id }).execute();
}
