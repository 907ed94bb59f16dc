import type { DescribeSnapshotsRequest, DescribeSnapshotsResult, Filter, Snapshot } from '@aws-sdk/client-ec2';
import { type SqlBool, sql } from 'kysely';
import { granteesOf } from '../../catalog/permissions.ts';
import type { SnapshotRow } from '../../catalog/schema.ts';
import { tagsOf } from '../../catalog/tags.ts';
import type { SnapshotId, VolumeId } from '../../types/ids.ts';
import { errors } from '../errors.ts';
import { compileFilters, type FilterTable } from '../filters.ts';
import { readSnapshotId } from '../identifiers.ts';
import { exactTags, exactValues } from '../narrowing.ts';
import type { Call, Operation } from '../operation.ts';
import { fillPage } from '../pages.ts';
import { findVisibleSnapshots, sharedWith } from './find-snapshot.ts';
import { progressOf, snapshotView, type TaggedSnapshot } from './snapshot-view.ts';

const FILTERS: FilterTable<TaggedSnapshot> = {
  description: (snapshot) => snapshot.description,
  encrypted: (snapshot) => snapshot.data_key_id !== null,
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
      (after, most) => candidates(call, input.Filters, owners, after as SnapshotId, most),
      (row) => row.snapshot_id,
      prepare,
      matches,
    );
    return { Snapshots: page.items.map(snapshotView), NextToken: page.nextToken };
  },
};

/**
 * Rows that may match, in the order of their ids. The caller's own and those of others are asked for by themselves: with
 * one question for both, SQLite sorts all that there are for each page.
 */
async function candidates(
  call: Call,
  filters: Filter[] | undefined,
  owners: ReadonlySet<string> | undefined,
  after: SnapshotId,
  most: number,
): Promise<SnapshotRow[]> {
  const { accountId } = call.caller;
  let query = call.services.catalog
    .selectFrom('snapshots')
    .selectAll()
    .where('region', '=', call.region)
    .where('snapshot_id', '>', after)
    .orderBy('snapshot_id')
    .limit(most);
  const volumes = exactValues(filters, 'volume-id');
  if (volumes !== undefined) query = query.where('volume_id', 'in', volumes as VolumeId[]);
  const states = exactValues(filters, 'status');
  if (states !== undefined) query = query.where('state', 'in', states as SnapshotRow['state'][]);
  for (const { key, values } of exactTags(filters)) {
    query = query.where(
      sql<SqlBool>`snapshot_id in (select resource_id from tags where account_id = ${accountId} and tag_key = ${key} and tag_value in (${sql.join(values)}))`,
    );
  }
  // Few are of a volume, or in another state than completed: to be found by that. (The plus keeps SQLite from going
  // through all that the account has.)
  const few = volumes !== undefined || states?.includes('completed') === false;
  const isOwn = few ? sql<SqlBool>`+account_id = ${accountId}` : sql<SqlBool>`account_id = ${accountId}`;
  const own = owners?.has(accountId) === false ? [] : await query.where(isOwn).execute();
  const onlyOwn = owners?.size === 1 && owners.has(accountId);
  const shared = onlyOwn ? [] : await query.where(sharedWith(call)).execute();
  if (shared.length === 0) return own;
  return [...own, ...shared].sort((a, b) => (a.snapshot_id < b.snapshot_id ? -1 : 1)).slice(0, most);
}

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
  return rows.map((row) => ({
    ...row,
    tags: tags.get(row.snapshot_id) ?? new Map(),
    grantees: grantees.get(row.snapshot_id) ?? [],
    progress: progressOf(row, lifecycle.snapshots),
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
