import type { Filter } from '@aws-sdk/client-ec2';
import { type RawBuilder, type SqlBool, sql } from 'kysely';
import type { SnapshotRow } from '../../catalog/schema.ts';
import type { AccountId, SnapshotId } from '../../types/ids.ts';
import { hasWildcard } from '../filters.ts';
import { conditionsOn, exactValues, fitsOne, narrowing } from '../narrowing.ts';
import type { Call } from '../operation.ts';
import { type Rows, STRETCH_ROWS } from '../pages.ts';
import { sharedWith } from './find-snapshot.ts';

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
  'storage-tier': sql`case when state = 'completed' and root is null then 'archive' else 'standard' end`,
  'last-tiering-operation': sql`(select operation || '-' || status from snapshot_archives
    where snapshot_archives.snapshot_id = snapshots.snapshot_id)`,
  // What no snapshot here has.
  'owner-alias': sql`null`,
  'transfer-type': sql`null`,
};

/**
 * Rows that may match, in the order of their ids. The caller's own and those of others are asked for by themselves: with
 * one question for both, SQLite sorts all that there are for each page.
 */
export function candidates(
  call: Call,
  all: Filter[] | undefined,
  owners: ReadonlySet<string> | undefined,
  restorers: ReadonlySet<string> | undefined,
): Rows<SnapshotRow> {
  const { catalog } = call.services;
  const { accountId } = call.caller;
  const filters = narrowing(all);
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
        .where('binned_at', 'is', null)
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
