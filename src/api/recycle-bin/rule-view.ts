import type { RetentionRuleRow } from '../../catalog/schema.ts';
import { ruleErrors } from './rule-errors.ts';

/** Without a value: whatever the value is. */
export type ResourceTag = { ResourceTagKey: string; ResourceTagValue?: string | undefined };
export type RuleTag = { Key: string; Value: string };
type LockState = 'locked' | 'pending_unlock' | 'unlocked';

/** Which snapshots a rule is about. */
export function resourceTagsOf(rule: Pick<RetentionRuleRow, 'resource_tags' | 'exclude_resource_tags'>): {
  wanted: ResourceTag[];
  excluded: ResourceTag[];
} {
  return {
    wanted: JSON.parse(rule.resource_tags) as ResourceTag[],
    excluded: JSON.parse(rule.exclude_resource_tags) as ResourceTag[],
  };
}

export function tagsOfRule(rule: Pick<RetentionRuleRow, 'tags'>): RuleTag[] {
  return JSON.parse(rule.tags) as RuleTag[];
}

/** A rule stays locked for its delay after someone has asked to unlock it. */
export function lockStateOf({ unlock_delay_days, unlocks_at }: RetentionRuleRow, now: Date): LockState {
  if (unlock_delay_days === null) return 'unlocked';
  if (unlocks_at === null) return 'locked';
  return Date.parse(unlocks_at) > now.getTime() ? 'pending_unlock' : 'unlocked';
}

/** @throws ApiError ConflictException */
export function assertChangeable(rule: RetentionRuleRow, now: Date): void {
  const state = lockStateOf(rule, now);
  if (state !== 'unlocked') throw ruleErrors.inState(rule.rule_id, state, rule.unlocks_at);
}

/** A rule as GetRule shows it, and all others that answer with one. */
export function ruleView(rule: RetentionRuleRow, now: Date): object {
  const { wanted, excluded } = resourceTagsOf(rule);
  const state = lockStateOf(rule, now);
  return {
    ...ruleSummary(rule, now),
    ResourceType: 'EBS_SNAPSHOT',
    ResourceTags: wanted,
    ExcludeResourceTags: excluded,
    Status: 'available',
    ...(rule.unlock_delay_days === null
      ? {}
      : { LockConfiguration: { UnlockDelay: { UnlockDelayValue: rule.unlock_delay_days, UnlockDelayUnit: 'DAYS' } } }),
    ...(state === 'pending_unlock' ? { LockEndTime: new Date(rule.unlocks_at ?? '') } : {}),
  };
}

/** A rule as ListRules shows it. */
export function ruleSummary(rule: RetentionRuleRow, now: Date): object {
  return {
    Identifier: rule.rule_id,
    Description: rule.description,
    RetentionPeriod: { RetentionPeriodValue: rule.retention_days, RetentionPeriodUnit: 'DAYS' },
    LockState: lockStateOf(rule, now),
    RuleArn: ruleArn(rule),
  };
}

export function ruleArn({
  account_id,
  region,
  rule_id,
}: Pick<RetentionRuleRow, 'account_id' | 'region' | 'rule_id'>): string {
  return `arn:aws:rbin:${region}:${account_id}:rule/${rule_id}`;
}
