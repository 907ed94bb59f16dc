import type { DescribeSnapshotsRequest, DescribeSnapshotsResult, Snapshot } from '@aws-sdk/client-ec2';
import { archivesOf } from '../../catalog/archive.ts';
import { granteesOf } from '../../catalog/permissions.ts';
import type { SnapshotRow } from '../../catalog/schema.ts';
import { tagsOf } from '../../catalog/tags.ts';
import type { SnapshotId } from '../../types/ids.ts';
import { errors } from '../errors.ts';
import { compileFilters, type FilterTable } from '../filters.ts';
import { readSnapshotId } from '../identifiers.ts';
import type { Call, Operation } from '../operation.ts';
import { fillPage } from '../pages.ts';
import { candidates } from './candidates.ts';
import { findVisibleSnapshots } from './find-snapshot.ts';
import { progressOf, snapshotView, type TaggedSnapshot, tierOf } from './snapshot-view.ts';

const FILTERS: FilterTable<TaggedSnapshot> = {
  description: (snapshot) => snapshot.description,
  encrypted: (snapshot) => snapshot.data_key_id !== null,
  'owner-alias': () => undefined,
  'owner-id': (snapshot) => snapshot.account_id,
  progress: (snapshot) => snapshot.progress,
  'snapshot-id': (snapshot) => snapshot.snapshot_id,
  'start-time': (snapshot) => snapshot.started_at,
  status: (snapshot) => snapshot.state,
  'storage-tier': tierOf,
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
    const filters = compileFilters(input.Filters, FILTERS, (snapshot) => snapshot.tags);
    const owners = readAccounts(input.OwnerIds, call);
    const restorers = readAccounts(input.RestorableByUserIds, call);
    await call.permit();
    const matches = (snapshot: TaggedSnapshot): boolean =>
      (owners === undefined || owners.has(snapshot.account_id)) &&
      (restorers === undefined || [snapshot.account_id, ...snapshot.grantees].some((each) => restorers.has(each))) &&
      filters(snapshot);
    const prepare = (rows: SnapshotRow[]): Promise<TaggedSnapshot[]> => completed(rows, call);
    if (ids.length > 0) {
      const found = await prepare(await findVisibleSnapshots(call, ids));
      return { Snapshots: found.filter(matches).map(snapshotView) };
    }
    const page = await fillPage(
      call,
      input,
      { least: 1, most: 1000 },
      candidates(call, input.Filters, owners, restorers),
      prepare,
      matches,
    );
    return { Snapshots: page.items.map(snapshotView), NextToken: page.nextToken };
  },
};

/** A snapshot as DescribeSnapshots shows it. */
export async function describeOne(call: Call, snapshotId: SnapshotId): Promise<Snapshot> {
  const [snapshot] = await completed(await findVisibleSnapshots(call, [snapshotId]), call);
  return snapshotView(snapshot);
}

/** Adds what the rows do not hold: tags (those of others are not shown), progress, and who may use them. */
async function completed(rows: SnapshotRow[], call: Call): Promise<TaggedSnapshot[]> {
  const { catalog, lifecycle } = call.services;
  const own = rows.filter((row) => row.account_id === call.caller.accountId).map((row) => row.snapshot_id);
  const tags = await tagsOf(catalog, own);
  const grantees = await granteesOf(
    catalog,
    rows.map((row) => row.snapshot_id),
  );
  const archives = await archivesOf(
    catalog,
    rows.map((row) => row.snapshot_id),
  );
  return rows.map((row) => ({
    ...row,
    tags: tags.get(row.snapshot_id) ?? new Map(),
    grantees: grantees.get(row.snapshot_id) ?? [],
    progress: progressOf(row, lifecycle.snapshots),
    archive: archives.get(row.snapshot_id),
  }));
}

/** Account ids, `self`, `all`, `amazon` (who owns nothing here). @throws ApiError InvalidParameterValue */
function readAccounts(accounts: readonly string[] | undefined, call: Call): Set<string> | undefined {
  if (accounts === undefined || accounts.length === 0) return undefined;
  for (const account of accounts) {
    if (!/^(self|all|amazon|aws-marketplace|\d{12})$/.test(account)) {
      throw errors.invalidValue('Owner', account, 'Expected self, all, amazon, or an account id of twelve digits.');
    }
  }
  return new Set(accounts.map((account) => (account === 'self' ? call.caller.accountId : account)));
}
