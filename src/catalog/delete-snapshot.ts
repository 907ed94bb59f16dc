import { deleteArchive } from './archive.ts';
import type { CatalogTransaction } from './catalog.ts';
import type { SnapshotRow } from './schema.ts';
import { removeTags } from './tags.ts';

/**
 * Deletes a snapshot, and notes what is to be removed in the bucket and in the archive: killed after the commit, the next start
 * knows.
 */
export async function deleteSnapshotRow(
  transaction: CatalogTransaction,
  { snapshot_id, set_id }: Pick<SnapshotRow, 'snapshot_id' | 'set_id'>,
): Promise<void> {
  const archived = transaction
    .selectFrom('snapshot_archives')
    .select('snapshot_id')
    .where('snapshot_id', '=', snapshot_id);
  if ((await archived.executeTakeFirst()) !== undefined) await deleteArchive(transaction, snapshot_id);
  await removeTags(transaction, snapshot_id);
  await transaction.deleteFrom('snapshots').where('snapshot_id', '=', snapshot_id).execute();
  await transaction.insertInto('deleted_records').values({ snapshot_id, set_id }).execute();
}
