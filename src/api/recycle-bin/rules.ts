import { randomInt } from 'node:crypto';
import { retentionRulesOf } from '../../catalog/recycle-bin.ts';
import type { RetentionRuleRow } from '../../catalog/schema.ts';
import { DAY_MILLISECONDS } from '../../types/units.ts';
import { ApiError } from '../../wire/api-error.ts';
import { requestTags, type Target } from '../authorization.ts';
import { fillPage } from '../pages.ts';
import { ruleErrors } from './rule-errors.ts';
import { changeRule, findRule, ruleOperation } from './rule-operation.ts';
import {
  CreateRuleRequest,
  ListRulesRequest,
  LockRuleRequest,
  RuleRequest,
  UpdateRuleRequest,
} from './rule-requests.ts';
import {
  assertChangeable,
  lockStateOf,
  type ResourceTag,
  resourceTagsOf,
  ruleSummary,
  ruleView,
  tagsOfRule,
} from './rule-view.ts';

/** AWS's quota, per region. */
const MOST_RULES = 250;
const ID_CHARACTERS = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';
const ID_LENGTH = 11;

/** From now on, deleted snapshots that the rule matches are kept for so many days. */
export const createRule = ruleOperation(CreateRuleRequest, async (input, call) => {
  const tags = requestTags(new Map(input.Tags.map(({ Key, Value }) => [Key, Value])));
  const context: Target['context'] = { 'rbin:Request/ResourceType': input.ResourceType, ...tags };
  const making: Target[] = [{ type: 'rule', context }];
  if (input.Tags.length > 0) making.push({ type: 'rule', action: 'rbin:TagResource', context });
  await call.permit(...making);
  const { catalog, now } = call.services;
  const rule: RetentionRuleRow = {
    rule_id: newRuleId(),
    account_id: call.caller.accountId,
    region: call.region,
    description: input.Description,
    retention_days: input.RetentionPeriod.RetentionPeriodValue,
    resource_tags: JSON.stringify(input.ResourceTags),
    exclude_resource_tags: JSON.stringify(input.ExcludeResourceTags),
    tags: JSON.stringify(input.Tags),
    unlock_delay_days: input.LockConfiguration?.UnlockDelay.UnlockDelayValue ?? null,
    unlocks_at: null,
  };
  checkKind(rule);
  if (rule.unlock_delay_days !== null) checkLockable(rule);
  await catalog.transaction().execute(async (transaction) => {
    if ((await retentionRulesOf(transaction, call.owner)).length >= MOST_RULES) {
      throw ruleErrors.tooManyRules(MOST_RULES);
    }
    await transaction.insertInto('retention_rules').values(rule).execute();
  });
  return { ...ruleView(rule, now()), Tags: tagsOfRule(rule) };
});

export const getRule = ruleOperation(RuleRequest, async ({ Identifier }, call) => {
  await call.permit({ type: 'rule', id: Identifier });
  const { catalog, now } = call.services;
  return ruleView(await findRule(catalog, call, Identifier), now());
});

/** The rules that have all the tags that are asked for. */
export const listRules = ruleOperation(ListRulesRequest, async (input, call) => {
  await call.permit({ type: 'rule', context: { 'rbin:Request/ResourceType': input.ResourceType } });
  const { catalog, now } = call.services;
  // Of other kinds there are none.
  const rules = input.ResourceType === 'EBS_SNAPSHOT' ? await retentionRulesOf(catalog, call.owner) : [];
  const matches = (rule: RetentionRuleRow): boolean => {
    const { wanted, excluded } = resourceTagsOf(rule);
    return (
      (input.LockState === undefined || lockStateOf(rule, now()) === input.LockState) &&
      input.ResourceTags.every((tag) => wanted.some((each) => isSame(each, tag))) &&
      input.ExcludeResourceTags.every((tag) => excluded.some((each) => isSame(each, tag)))
    );
  };
  const page = await fillPage(
    call,
    input,
    { least: 1, most: 1000 },
    {
      fetch: async (after, most) => rules.filter(({ rule_id }) => rule_id > after).slice(0, most),
      idOf: ({ rule_id }) => rule_id,
    },
    async (rows) => rows,
    matches,
  ).catch((error: unknown) => {
    // EC2's word for a token that is none; the size of the page is known to be right.
    throw error instanceof ApiError ? ruleErrors.invalidToken() : error;
  });
  return { Rules: page.items.map((rule) => ruleSummary(rule, now())), NextToken: page.nextToken };
});

/** What is in the recycle bin already stays as long as it was to stay when it came there. */
export const updateRule = ruleOperation(UpdateRuleRequest, async (input, call) => {
  await call.permit({ type: 'rule', id: input.Identifier });
  const { now } = call.services;
  const changed = await changeRule(call, input.Identifier, (rule) => {
    assertChangeable(rule, now());
    const { RetentionPeriod, Description, ResourceTags, ExcludeResourceTags } = input;
    const changes = {
      retention_days: RetentionPeriod?.RetentionPeriodValue ?? rule.retention_days,
      description: Description ?? rule.description,
      resource_tags: ResourceTags === undefined ? rule.resource_tags : JSON.stringify(ResourceTags),
      exclude_resource_tags:
        ExcludeResourceTags === undefined ? rule.exclude_resource_tags : JSON.stringify(ExcludeResourceTags),
    };
    checkKind(changes);
    return changes;
  });
  return ruleView(changed, now());
});

export const deleteRule = ruleOperation(RuleRequest, async ({ Identifier }, call) => {
  await call.permit({ type: 'rule', id: Identifier });
  const { catalog, now } = call.services;
  await catalog.transaction().execute(async (transaction) => {
    assertChangeable(await findRule(transaction, call, Identifier), now());
    await transaction.deleteFrom('retention_rules').where('rule_id', '=', Identifier).execute();
  });
  return {};
});

/** Nobody changes or deletes the rule until it was unlocked, and its delay is over. Ends an unlocking that is under way. */
export const lockRule = ruleOperation(LockRuleRequest, async (input, call) => {
  await call.permit({ type: 'rule', id: input.Identifier });
  const { now } = call.services;
  const locked = await changeRule(call, input.Identifier, (rule) => {
    checkLockable(rule);
    const state = lockStateOf(rule, now());
    const days = input.LockConfiguration.UnlockDelay.UnlockDelayValue;
    // Otherwise the delay that someone relies on could be made short by locking once more.
    if (state !== 'unlocked' && days < (rule.unlock_delay_days ?? 0)) {
      throw ruleErrors.inState(rule.rule_id, state, rule.unlocks_at);
    }
    return { unlock_delay_days: days, unlocks_at: null };
  });
  return ruleView(locked, now());
});

export const unlockRule = ruleOperation(RuleRequest, async ({ Identifier }, call) => {
  await call.permit({ type: 'rule', id: Identifier });
  const { now } = call.services;
  const unlocking = await changeRule(call, Identifier, (rule) => {
    const state = lockStateOf(rule, now());
    if (state !== 'locked') throw ruleErrors.inState(rule.rule_id, state, rule.unlocks_at);
    const end = now().getTime() + (rule.unlock_delay_days ?? 0) * DAY_MILLISECONDS;
    return { unlocks_at: new Date(end).toISOString() };
  });
  return ruleView(unlocking, now());
});

function newRuleId(): string {
  return Array.from({ length: ID_LENGTH }, () => ID_CHARACTERS[randomInt(ID_CHARACTERS.length)]).join('');
}

/** A rule keeps what has some tags, or everything but what has some. @throws ApiError ValidationException */
function checkKind(rule: Pick<RetentionRuleRow, 'resource_tags' | 'exclude_resource_tags'>): void {
  const { wanted, excluded } = resourceTagsOf(rule);
  if (wanted.length > 0 && excluded.length > 0) {
    throw ruleErrors.invalid('ResourceTags and ExcludeResourceTags cannot stand in one rule.');
  }
}

/** @throws ApiError ValidationException: whoever may change tags could keep a snapshot out of a rule that has some */
function checkLockable(rule: RetentionRuleRow): void {
  const { wanted, excluded } = resourceTagsOf(rule);
  if (wanted.length + excluded.length > 0) {
    throw ruleErrors.invalid('Only a rule without ResourceTags and ExcludeResourceTags can be locked.');
  }
}

function isSame(one: ResourceTag, other: ResourceTag): boolean {
  return one.ResourceTagKey === other.ResourceTagKey && one.ResourceTagValue === other.ResourceTagValue;
}
