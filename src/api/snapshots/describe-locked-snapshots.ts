import type {
  DescribeLockedSnapshotsRequest,
  DescribeLockedSnapshotsResult,
  LockedSnapshotsInfo,
} from '@aws-sdk/client-ec2';
import type { SnapshotId } from '../../types/ids.ts';
import { compileFilters, type FilterTable } from '../filters.ts';
import { readSnapshotId } from '../identifiers.ts';
import type { Call, Operation } from '../operation.ts';
import { fillPage } from '../pages.ts';
import { findVisibleSnapshots } from './find-snapshot.ts';
import { type LockedRow, lockView } from './snapshot-lock.ts';

const FILTERS: FilterTable<LockedSnapshotsInfo> = { 'lock-state': (lock) => lock.LockState };

/** The locks on the caller's own snapshots, those that have expired too. */
export const describeLockedSnapshots: Operation<DescribeLockedSnapshotsRequest, DescribeLockedSnapshotsResult> = {
  honoured: ['SnapshotIds', 'Filters', 'MaxResults', 'NextToken'],

  async run(input, call) {
    const ids = (input.SnapshotIds ?? []).map((id) => readSnapshotId(id));
    const passes = compileFilters(input.Filters, FILTERS, () => new Map());
    await call.permit();
    if (ids.length > 0) await findVisibleSnapshots(call, ids);
    const now = call.services.now();
    const page = await fillPage(
      call,
      input,
      { least: 5, most: 1000 },
      { fetch: (after, most) => lockedAfter(call, after as SnapshotId, most, ids), idOf: (row) => row.snapshot_id },
      async (rows) => rows.map((row) => lockView(row, now)),
      passes,
    );
    return { Snapshots: page.items, NextToken: page.nextToken };
  },
};

function lockedAfter(call: Call, after: SnapshotId, most: number, ids: readonly SnapshotId[]): Promise<LockedRow[]> {
  const query = call.services.catalog
    .selectFrom('snapshot_locks')
    .innerJoin('snapshots', 'snapshots.snapshot_id', 'snapshot_locks.snapshot_id')
    .selectAll('snapshot_locks')
    .select(['snapshots.account_id', 'snapshots.completed_at'])
    .where('snapshots.account_id', '=', call.caller.accountId)
    .where('snapshots.region', '=', call.region)
    .where('snapshots.state', '<>', 'error')
    .where('snapshots.binned_at', 'is', null)
    .where('snapshot_locks.snapshot_id', '>', after)
    .orderBy('snapshot_locks.snapshot_id')
    .limit(most);
  return (ids.length === 0 ? query : query.where('snapshot_locks.snapshot_id', 'in', [...ids])).execute();
}
