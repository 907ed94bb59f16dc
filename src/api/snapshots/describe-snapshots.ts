import type { DescribeSnapshotsRequest, DescribeSnapshotsResult, Filter, Snapshot } from '@aws-sdk/client-ec2';
import { type RawBuilder, type SqlBool, sql } from 'kysely';
import { granteesOf } from '../../catalog/permissions.ts';
import type { SnapshotRow } from '../../catalog/schema.ts';
import { tagsOf } from '../../catalog/tags.ts';
import type { AccountId, SnapshotId } from '../../types/ids.ts';
import { errors } from '../errors.ts';
import { compileFilters, type FilterTable } from '../filters.ts';
import { readSnapshotId } from '../identifiers.ts';
import { conditionsOn, exactValues, fitsOne, hasWildcard, narrowing } from '../narrowing.ts';
import type { Call, Operation } from '../operation.ts';
import { fillPage, type Rows, STRETCH_ROWS } from '../pages.ts';
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

/** Those of the filters that the database knows how to answer. */
const COLUMNS = {
  description: sql.ref('description'),
  encrypted: sql`case when data_key_id is null then 'false' else 'true' end`,
  'owner-id': sql.ref('account_id'),
  'snapshot-id': sql.ref('snapshot_id'),
  'start-time': sql.ref('started_at'),
  status: sql.ref('state'),
  'volume-id': sql.ref('volume_id'),
  'volume-size': sql`cast(size_gib as text)`,
  'storage-tier': sql`'standard'`,
  // What no snapshot here has.
  'owner-alias': sql`null`,
  'transfer-type': sql`null`,
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
      candidates(call, narrowing(input.Filters), owners, restorers),
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
function candidates(
  call: Call,
  filters: Filter[],
  owners: ReadonlySet<string> | undefined,
  restorers: ReadonlySet<string> | undefined,
): Rows<SnapshotRow> {
  const { catalog } = call.services;
  const { accountId } = call.caller;
  const [volumes, states] = [exactValues(filters, 'volume-id'), exactValues(filters, 'status')];
  // Few are of a volume, or in another state than completed: to be found by that. (The plus keeps SQLite from going
  // through all that the account has.)
  const few = volumes !== undefined || states?.includes('completed') === false;
  const isOwn = few ? sql<SqlBool>`+account_id = ${accountId}` : sql<SqlBool>`account_id = ${accountId}`;
  const asksOwn = owners?.has(accountId) !== false;
  const asksOthers = owners?.size !== 1 || !asksOwn;
  const conditions = [
    ...conditionsOn(filters, COLUMNS),
    ...filters.flatMap((filter) => tagConditions(filter, accountId)),
    ...restorableBy(restorers),
  ];
  const isFound = few || exactValues(filters, 'snapshot-id') !== undefined || filters.some(asksForTag);
  return {
    fetch: async (after, most, until) => {
      let query = catalog
        .selectFrom('snapshots')
        .selectAll()
        .where('region', '=', call.region)
        .where('snapshot_id', '>', after as SnapshotId)
        .orderBy('snapshot_id')
        .limit(most);
      for (const condition of conditions) query = query.where(condition);
      if (until !== undefined) query = query.where('snapshot_id', '<=', until as SnapshotId);
      const own = asksOwn ? await query.where(isOwn).execute() : [];
      const shared = asksOthers ? await query.where(sharedWith(call)).execute() : [];
      if (shared.length === 0) return own;
      return [...own, ...shared].sort((a, b) => (a.snapshot_id < b.snapshot_id ? -1 : 1)).slice(0, most);
    },
    idOf: (row) => row.snapshot_id,
    stretchEnd: conditions.length === 0 || isFound ? undefined : (after) => stretchEnd(call, after as SnapshotId),
  };
}

/** What a filter asks of a snapshot's tags. */
function tagConditions({ Name = '', Values = [] }: Filter, accountId: AccountId): RawBuilder<SqlBool>[] {
  if (Name === 'tag-key') {
    return fitsOne(sql.ref('tag_key'), Values).map(
      (fits) => sql`exists (select 1 from tags where resource_id = snapshot_id and ${fits})`,
    );
  }
  if (!Name.startsWith('tag:')) return [];
  const key = Name.slice('tag:'.length);
  return fitsOne(sql.ref('tag_value'), Values).map((fits) =>
    Values.some(hasWildcard)
      ? sql`exists (select 1 from tags where resource_id = snapshot_id and tag_key = ${key} and ${fits})`
      : sql`snapshot_id in (select resource_id from tags where account_id = ${accountId} and tag_key = ${key} and ${fits})`,
  );
}

/** Whether an index knows who has what the filter asks for. */
function asksForTag({ Name = '', Values = [] }: Filter): boolean {
  return Name.startsWith('tag:') && Values.length > 0 && !Values.some(hasWildcard);
}

/** Whoever owns a snapshot may restore it, too. */
function restorableBy(accounts: ReadonlySet<string> | undefined): RawBuilder<SqlBool>[] {
  if (accounts === undefined) return [];
  const each = sql.join([...accounts]);
  return [
    sql`(account_id in (${each})
      or snapshot_id in (select snapshot_id from snapshot_permissions where grantee in (${each})))`,
  ];
}

async function stretchEnd(call: Call, after: SnapshotId): Promise<SnapshotId | undefined> {
  const end = await call.services.catalog
    .selectFrom('snapshots')
    .select('snapshot_id')
    .where('snapshot_id', '>', after)
    .orderBy('snapshot_id')
    .offset(STRETCH_ROWS)
    .limit(1)
    .executeTakeFirst();
  return end?.snapshot_id;
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
