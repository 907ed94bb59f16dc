import { z } from 'zod';

/** The forms of what the Recycle Bin's API takes, as its model has them (2021-06-15). */

const MOST_RESOURCE_TAGS = 50;
const MOST_EXCLUDED_TAGS = 5;
export const MOST_TAGS = 50;

const RetentionPeriod = z.strictObject({
  // The model goes up to 3650; snapshots are kept for a year at most.
  RetentionPeriodValue: z.int().min(1).max(365),
  RetentionPeriodUnit: z.literal('DAYS'),
});
const Description = z.string().regex(/^[\S ]{0,255}$/, 'Expected at most 255 characters, on one line');
const ResourceType = z.enum(['EBS_SNAPSHOT', 'EC2_IMAGE', 'EBS_VOLUME']);
/** What a rule can be about here. */
const KeptType = ResourceType.refine((type) => type === 'EBS_SNAPSHOT', 'Only snapshots are kept: EBS_SNAPSHOT');
const ResourceTag = z.strictObject({
  ResourceTagKey: z.string().min(1).max(128),
  ResourceTagValue: z.string().max(256).optional(),
});
const ResourceTags = z.array(ResourceTag).max(MOST_RESOURCE_TAGS);
const ExcludeResourceTags = z.array(ResourceTag).max(MOST_EXCLUDED_TAGS);
const TagKey = z
  .string()
  .min(1)
  .max(128)
  .regex(/^(?!aws:)[\p{L}\p{Z}\p{N}_.:/=+\-@]*$/iu, "Expected letters, digits, spaces and _.:/=+-@, and no 'aws:'");
const TagValue = z
  .string()
  .max(256)
  .regex(/^[\p{L}\p{Z}\p{N}_.:/=+\-@]*$/u, 'Expected letters, digits, spaces and _.:/=+-@');
const Tags = z
  .array(z.strictObject({ Key: TagKey, Value: TagValue }))
  .max(MOST_TAGS)
  .refine((tags) => new Set(tags.map(({ Key }) => Key)).size === tags.length, 'A key stands there twice');
const LockConfiguration = z.strictObject({
  UnlockDelay: z.strictObject({ UnlockDelayValue: z.int().min(7).max(30), UnlockDelayUnit: z.literal('DAYS') }),
});
const LockState = z.enum(['locked', 'pending_unlock', 'unlocked']);
const Identifier = z.string().regex(/^[0-9a-zA-Z]{11}$/, 'Expected 11 letters and digits');
const ResourceArn = z.string().max(1011);

export const CreateRuleRequest = z.strictObject({
  RetentionPeriod,
  Description: Description.default(''),
  Tags: Tags.default([]),
  ResourceType: KeptType,
  ResourceTags: ResourceTags.default([]),
  ExcludeResourceTags: ExcludeResourceTags.default([]),
  LockConfiguration: LockConfiguration.optional(),
});
export const UpdateRuleRequest = z.strictObject({
  Identifier,
  RetentionPeriod: RetentionPeriod.optional(),
  Description: Description.optional(),
  ResourceType: KeptType.optional(),
  ResourceTags: ResourceTags.optional(),
  ExcludeResourceTags: ExcludeResourceTags.optional(),
});
export const ListRulesRequest = z.strictObject({
  MaxResults: z.int().min(1).max(1000).optional(),
  NextToken: z.string().optional(),
  ResourceType,
  ResourceTags: ResourceTags.default([]),
  ExcludeResourceTags: ExcludeResourceTags.default([]),
  LockState: LockState.optional(),
});
export const RuleRequest = z.strictObject({ Identifier });
export const LockRuleRequest = z.strictObject({ Identifier, LockConfiguration });
export const ResourceRequest = z.strictObject({ ResourceArn });
export const TagResourceRequest = z.strictObject({ ResourceArn, Tags });
export const UntagResourceRequest = z.strictObject({ ResourceArn, TagKeys: z.array(z.string()).max(200) });
