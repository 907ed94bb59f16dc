import type { CatalogTransaction } from '../../catalog/catalog.ts';
import { retentionRulesOf } from '../../catalog/recycle-bin.ts';
import type { RetentionRuleRow, SnapshotRow } from '../../catalog/schema.ts';
import { tagsOf } from '../../catalog/tags.ts';
import { DAY_MILLISECONDS } from '../../types/units.ts';
import { type ResourceTag, resourceTagsOf } from './rule-view.ts';

/**
 * Until when a snapshot stays in the recycle bin that is being deleted now: as long as the longest of the rules that it
 * matches says. Undefined where none does, and of one that holds nothing to be kept, as it is pending or has failed.
 */
export async function keptUntil(
  transaction: CatalogTransaction,
  { snapshot_id, account_id, region, state }: SnapshotRow,
  now: Date,
): Promise<Date | undefined> {
  if (state !== 'completed') return undefined;
  const rules = await retentionRulesOf(transaction, { accountId: account_id, region });
  if (rules.length === 0) return undefined;
  const tags = (await tagsOf(transaction, [snapshot_id])).get(snapshot_id) ?? new Map<string, string>();
  const days = rules.filter((rule) => keeps(rule, tags)).map((rule) => rule.retention_days);
  return days.length === 0 ? undefined : new Date(now.getTime() + Math.max(...days) * DAY_MILLISECONDS);
}

/** A rule with tags keeps what has one of them; one without keeps everything in the region but what it excludes. */
export function keeps(
  rule: Pick<RetentionRuleRow, 'resource_tags' | 'exclude_resource_tags'>,
  tags: ReadonlyMap<string, string>,
): boolean {
  const { wanted, excluded } = resourceTagsOf(rule);
  const has = ({ ResourceTagKey: key, ResourceTagValue: value }: ResourceTag): boolean =>
    value === undefined ? tags.has(key) : tags.get(key) === value;
  return wanted.length > 0 ? wanted.some(has) : !excluded.some(has);
}
