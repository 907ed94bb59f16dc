import type { DescribeSnapshotsRequest, DescribeSnapshotsResult } from '@aws-sdk/client-ec2';
import type { SnapshotRow } from '../../catalog/schema.ts';
import { tagsOf } from '../../catalog/tags.ts';
import type { SnapshotId } from '../../types/ids.ts';
import { errors } from '../errors.ts';
import { compileFilters, type FilterTable } from '../filters.ts';
import { readSnapshotId } from '../identifiers.ts';
import type { Call, Operation } from '../operation.ts';
import { fillPage } from '../pages.ts';
import { progressOf, snapshotView, type TaggedSnapshot } from './snapshot-view.ts';

const FILTERS: FilterTable<TaggedSnapshot> = {
  description: (snapshot) => snapshot.description,
  encrypted: () => false,
  'owner-alias': () => undefined,
  'owner-id': (snapshot) => snapshot.account_id,
  progress: (snapshot) => snapshot.progress,
  'snapshot-id': (snapshot) => snapshot.snapshot_id,
  'start-time': (snapshot) => snapshot.started_at,
  status: (snapshot) => snapshot.state,
  'storage-tier': () => 'standard',
  'transfer-type': () => undefined,
  'volume-id': (snapshot) => snapshot.volume_id,
  'volume-size': (snapshot) => snapshot.size_gib,
};

export const describeSnapshots: Operation<DescribeSnapshotsRequest, DescribeSnapshotsResult> = {
  honoured: ['SnapshotIds', 'OwnerIds', 'RestorableByUserIds', 'Filters', 'MaxResults', 'NextToken'],

  async run(input, call) {
    const ids = (input.SnapshotIds ?? []).map((id) => readSnapshotId(id));
    if (ids.length > 0 && input.MaxResults !== undefined) {
      throw errors.combination('The parameter snapshotId cannot be used with the parameter maxResults.');
    }
    const matches = compileFilters(input.Filters, FILTERS, (snapshot) => snapshot.tags);
    call.permit();
    const owned = isAsked(input.OwnerIds, call) && isAsked(input.RestorableByUserIds, call);
    const tagged = (rows: SnapshotRow[]): Promise<TaggedSnapshot[]> => withTags(rows, call);
    if (ids.length > 0) {
      const found = await tagged(await findSnapshots(call, ids));
      return { Snapshots: found.filter((snapshot) => owned && matches(snapshot)).map(snapshotView) };
    }
    if (!owned) return { Snapshots: [] };
    const page = await fillPage(
      input,
      { least: 1, most: 1000 },
      (after, most) =>
        call.services.catalog
          .selectFrom('snapshots')
          .selectAll()
          .where('account_id', '=', call.caller.accountId)
          .where('snapshot_id', '>', after as SnapshotId)
          .orderBy('snapshot_id')
          .limit(most)
          .execute(),
      (row) => row.snapshot_id,
      tagged,
      matches,
    );
    return { Snapshots: page.items.map(snapshotView), NextToken: page.nextToken };
  },
};

/** @throws ApiError InvalidSnapshot.NotFound for the first that the caller has not */
export async function findSnapshots(call: Call, ids: readonly SnapshotId[]): Promise<SnapshotRow[]> {
  const rows = await call.services.catalog
    .selectFrom('snapshots')
    .selectAll()
    .where('snapshot_id', 'in', [...ids])
    .where('account_id', '=', call.caller.accountId)
    .orderBy('snapshot_id')
    .execute();
  for (const id of ids) if (!rows.some((row) => row.snapshot_id === id)) throw errors.noSnapshot(id);
  return rows;
}

async function withTags(rows: SnapshotRow[], call: Call): Promise<TaggedSnapshot[]> {
  const { catalog, lifecycle } = call.services;
  const tags = await tagsOf(
    catalog,
    rows.map((row) => row.snapshot_id),
  );
  return rows.map((row) => ({
    ...row,
    tags: tags.get(row.snapshot_id) ?? new Map(),
    progress: progressOf(row, lifecycle.snapshots),
  }));
}

/** Whether a list of owners (or users) includes the caller; an absent list does. */
function isAsked(owners: readonly string[] | undefined, call: Call): boolean {
  if (owners === undefined || owners.length === 0) return true;
  for (const owner of owners) {
    if (!/^(self|amazon|all|aws-marketplace|\d{12})$/.test(owner)) {
      throw errors.invalidValue('Owner', owner, 'Expected self, amazon, all, or an account id of twelve digits.');
    }
  }
  return owners.includes('self') || owners.includes('all') || owners.includes(call.caller.accountId);
}
