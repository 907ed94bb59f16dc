import { requestTags } from '../authorization.ts';
import type { Call } from '../operation.ts';
import { ruleErrors } from './rule-errors.ts';
import { changeRule, findRule, ruleOperation } from './rule-operation.ts';
import { MOST_TAGS, ResourceRequest, TagResourceRequest, UntagResourceRequest } from './rule-requests.ts';
import { tagsOfRule } from './rule-view.ts';

export const listTagsForResource = ruleOperation(ResourceRequest, async ({ ResourceArn }, call) => {
  const ruleId = readArn(call, ResourceArn);
  await call.permit({ type: 'rule', id: ruleId });
  return { Tags: tagsOfRule(await findRule(call.services.catalog, call, ruleId)) };
});

/** Sets tags of a rule; a key that is there gets the new value. Locks have nothing to do with it. */
export const tagResource = ruleOperation(TagResourceRequest, async ({ ResourceArn, Tags }, call) => {
  const ruleId = readArn(call, ResourceArn);
  const added = new Map(Tags.map(({ Key, Value }) => [Key, Value]));
  await call.permit({ type: 'rule', id: ruleId, context: requestTags(added) });
  await changeRule(call, ruleId, (rule) => {
    const tags = new Map(tagsOfRule(rule).map(({ Key, Value }) => [Key, Value]));
    for (const [key, value] of added) tags.set(key, value);
    if (tags.size > MOST_TAGS) throw ruleErrors.tooManyTags(MOST_TAGS);
    return { tags: JSON.stringify([...tags].map(([Key, Value]) => ({ Key, Value }))) };
  });
  return {};
});

export const untagResource = ruleOperation(UntagResourceRequest, async ({ ResourceArn, TagKeys }, call) => {
  const ruleId = readArn(call, ResourceArn);
  await call.permit({ type: 'rule', id: ruleId, context: { 'aws:TagKeys': TagKeys } });
  await changeRule(call, ruleId, (rule) => ({
    tags: JSON.stringify(tagsOfRule(rule).filter(({ Key }) => !TagKeys.includes(Key))),
  }));
  return {};
});

/** @throws ApiError ValidationException; ResourceNotFoundException for a rule of another account or region */
function readArn({ caller, region }: Call, arn: string): string {
  const parts = /^arn:[^:\s]+:rbin:([^:\s]*):(\d{12}):rule\/([0-9a-zA-Z]{11})$/.exec(arn);
  if (parts === null) throw ruleErrors.invalid(`ResourceArn '${arn}' is not the ARN of a retention rule.`);
  const [, ofRegion, ofAccount, ruleId] = parts;
  if (ofRegion !== region || ofAccount !== caller.accountId) throw ruleErrors.noRule(arn);
  return ruleId;
}
