import type { AccountId, SnapshotId } from '../types/ids.ts';
import type { Catalog, CatalogTransaction } from './catalog.ts';
import type { RetentionRuleRow, SnapshotRow } from './schema.ts';
import { putTags } from './tags.ts';

/** What EC2 puts on a snapshot for as long as it is in the recycle bin; nobody else can. */
const IN_BIN = { key: 'aws:recycle-bin:resource-in-bin', value: 'true' };

/** Puts a snapshot into the recycle bin: to all but the owner's asking for what is in there, it is deleted. */
export async function putIntoBin(
  transaction: CatalogTransaction,
  { snapshot_id, account_id, region }: Pick<SnapshotRow, 'snapshot_id' | 'account_id' | 'region'>,
  binnedAt: Date,
  binnedUntil: Date,
): Promise<void> {
  await transaction
    .updateTable('snapshots')
    .set({ binned_at: binnedAt.toISOString(), binned_until: binnedUntil.toISOString() })
    .where('snapshot_id', '=', snapshot_id)
    .execute();
  const owner = { resourceId: snapshot_id, resourceType: 'snapshot' as const, accountId: account_id, region };
  await putTags(transaction, owner, new Map([[IN_BIN.key, IN_BIN.value]]));
}

/** Takes a snapshot out of the recycle bin: it is there again, as it was. */
export async function takeFromBin(transaction: CatalogTransaction, snapshotId: SnapshotId): Promise<void> {
  await transaction
    .updateTable('snapshots')
    .set({ binned_at: null, binned_until: null })
    .where('snapshot_id', '=', snapshotId)
    .execute();
  await transaction
    .deleteFrom('tags')
    .where('resource_id', '=', snapshotId)
    .where('tag_key', '=', IN_BIN.key)
    .execute();
}

/** An account's rules in a region, by their ids. */
export function retentionRulesOf(
  catalog: Catalog,
  { accountId, region }: { accountId: AccountId; region: string },
): Promise<RetentionRuleRow[]> {
  return catalog
    .selectFrom('retention_rules')
    .selectAll()
    .where('account_id', '=', accountId)
    .where('region', '=', region)
    .orderBy('rule_id')
    .execute();
}

/** How many snapshots are in the recycle bin: an owner's, or all. */
export async function countBinned(catalog: Catalog, owner?: { accountId: AccountId; region: string }): Promise<number> {
  let query = catalog
    .selectFrom('snapshots')
    .select(({ fn }) => fn.countAll<number>().as('number'))
    .where('binned_at', 'is not', null);
  if (owner !== undefined) query = query.where('account_id', '=', owner.accountId).where('region', '=', owner.region);
  return Number((await query.executeTakeFirstOrThrow()).number);
}

/** Numbers of snapshots by state, with those in the recycle bin (all of which were completed) in EC2's state for them. */
export function binnedApart(states: Record<string, number>, binned: number): Record<string, number> {
  if (binned === 0) return states;
  const { completed = 0, ...others } = states;
  return { ...others, ...(completed > binned ? { completed: completed - binned } : {}), recoverable: binned };
}
