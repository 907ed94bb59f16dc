import type { Expression, ExpressionBuilder, SqlBool } from 'kysely';
import { isArchived } from '../../catalog/archive.ts';
import type { CatalogTransaction } from '../../catalog/catalog.ts';
import { imageOf } from '../../catalog/images.ts';
import type { CatalogSchema, SnapshotRow } from '../../catalog/schema.ts';
import type { SnapshotId } from '../../types/ids.ts';
import type { Sha256 } from '../../types/units.ts';
import { errors } from '../errors.ts';
import { firstMissing } from '../identifiers.ts';
import type { Call } from '../operation.ts';

type Where = ExpressionBuilder<CatalogSchema, 'snapshots'>;

/** The snapshots of others that a caller may see: those shared with it, and public ones. */
export function sharedWith(call: Call) {
  return (where: Where): Expression<SqlBool> => {
    const grantedTo = (grantee: string) =>
      where(
        'snapshot_id',
        'in',
        where
          .selectFrom('snapshot_permissions')
          .select('snapshot_permissions.snapshot_id')
          .where('grantee', '=', grantee),
      );
    // Of accounts that block all public access, none is public, whatever was granted.
    const blocking = where
      .selectFrom('account_settings')
      .select('account_settings.account_id')
      .where('name', '=', 'snapshot-block-public-access')
      .where('value', '=', 'block-all-sharing')
      .where('account_settings.region', '=', call.region);
    return where.and([
      where('account_id', '<>', call.caller.accountId),
      where.or([
        grantedTo(call.caller.accountId),
        where.and([grantedTo('all'), where('account_id', 'not in', blocking)]),
      ]),
    ]);
  };
}

/** The snapshots that a caller may see in its region: its own, and those of others; none that is in the recycle bin. */
export function visibleTo(call: Call) {
  return (where: Where): Expression<SqlBool> =>
    where.and([
      where('region', '=', call.region),
      where('binned_at', 'is', null),
      where.or([where('account_id', '=', call.caller.accountId), sharedWith(call)(where)]),
    ]);
}

/** @throws ApiError InvalidSnapshot.NotFound for the first that the caller may not see */
export async function findVisibleSnapshots(call: Call, ids: readonly SnapshotId[]): Promise<SnapshotRow[]> {
  const rows = await call.services.catalog
    .selectFrom('snapshots')
    .selectAll()
    .where('snapshot_id', 'in', [...ids])
    .where(visibleTo(call))
    .orderBy('snapshot_id')
    .execute();
  const missing = firstMissing(ids, rows, (row) => row.snapshot_id);
  if (missing !== undefined) throw errors.noSnapshot(missing);
  return rows;
}

/** A snapshot as it is at this commit. @throws ApiError InvalidSnapshot.NotFound */
export async function stillThere(transaction: CatalogTransaction, snapshotId: SnapshotId): Promise<SnapshotRow> {
  const snapshot = await transaction
    .selectFrom('snapshots')
    .selectAll()
    .where('snapshot_id', '=', snapshotId)
    .executeTakeFirst();
  if (snapshot === undefined || snapshot.binned_at !== null) throw errors.noSnapshot(snapshotId);
  return snapshot;
}

/** That no image names it, of which instances could be launched. @throws ApiError InvalidSnapshot.InUse */
export async function assertInNoImage(transaction: CatalogTransaction, snapshotId: SnapshotId): Promise<void> {
  const imageId = await imageOf(transaction, snapshotId);
  if (imageId !== undefined) throw errors.snapshotInUse(snapshotId, imageId);
}

/** One that has a manifest in the object store. */
type ReadableSnapshot = SnapshotRow & { root: Sha256 };

/** That there is something to read a snapshot from. @throws ApiError IncorrectState: it is not complete, or archived */
export function assertReadable(snapshot: SnapshotRow): asserts snapshot is ReadableSnapshot {
  const { snapshot_id, state } = snapshot;
  if (state !== 'completed') throw errors.snapshotState(snapshot_id, state);
  if (isArchived(snapshot)) throw errors.snapshotArchived(snapshot_id);
}

/** One that the caller owns, and so may change. @throws ApiError InvalidSnapshot.NotFound */
export async function findOwnSnapshot(call: Call, id: SnapshotId): Promise<SnapshotRow> {
  const [snapshot] = await findVisibleSnapshots(call, [id]);
  if (snapshot.account_id !== call.caller.accountId) throw errors.noSnapshot(id);
  return snapshot;
}
