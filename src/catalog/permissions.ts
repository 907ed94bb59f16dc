import type { SnapshotId } from '../types/ids.ts';
import type { Catalog } from './catalog.ts';

/** Accounts that may make volumes of each snapshot, or `all`; by snapshot. */
export async function granteesOf(
  catalog: Catalog,
  snapshotIds: readonly SnapshotId[],
): Promise<Map<SnapshotId, string[]>> {
  const found = new Map<SnapshotId, string[]>();
  if (snapshotIds.length === 0) return found;
  const rows = await catalog
    .selectFrom('snapshot_permissions')
    .selectAll()
    .where('snapshot_id', 'in', [...snapshotIds])
    .orderBy('grantee')
    .execute();
  for (const { snapshot_id, grantee } of rows) found.set(snapshot_id, [...(found.get(snapshot_id) ?? []), grantee]);
  return found;
}
