import type { Tag, TagSpecification } from '@aws-sdk/client-ec2';
import type { ResourceType } from '../../catalog/schema.ts';
import { errors } from '../errors.ts';

/** The limits of the API as CreateSnapshots was published with. */
const MAX_KEY_CHARACTERS = 127;
const MAX_VALUE_CHARACTERS = 255;
const MAX_TAGS = 50;

export type Tags = Map<string, string>;

/**
 * Checks the tags of a request.
 * @throws ApiError InvalidParameterValue for an empty, reserved, over-long or doubled key, or an over-long value
 */
export function readTags(tags: readonly Tag[] | undefined): Tags {
  const read: Tags = new Map();
  for (const { Key: key, Value: value = '' } of tags ?? []) {
    if (key === undefined || key === '') throw errors.invalidValue('Tag.Key', key ?? '', 'Tag key cannot be empty');
    if (/^aws:/i.test(key)) throw errors.reservedTag(key);
    if (characters(key) > MAX_KEY_CHARACTERS) {
      throw errors.invalidValue(
        'Tag.Key',
        key,
        `Tag key exceeds the maximum length of ${MAX_KEY_CHARACTERS} characters`,
      );
    }
    if (characters(value) > MAX_VALUE_CHARACTERS) {
      throw errors.invalidValue(
        'Tag.Value',
        value,
        `Tag value exceeds the maximum length of ${MAX_VALUE_CHARACTERS} characters`,
      );
    }
    if (read.has(key)) throw errors.invalidValue('Tag.Key', key, `Duplicate tag key '${key}' specified.`);
    read.set(key, value);
  }
  checkTagCount(read);
  return read;
}

/** @throws ApiError TagLimitExceeded; `aws:` tags do not count */
export function checkTagCount(tags: Tags): void {
  let count = 0;
  for (const key of tags.keys()) if (!key.startsWith('aws:')) count += 1;
  if (count > MAX_TAGS) throw errors.tooManyTags();
}

/**
 * Reads the TagSpecifications of a creating call: the tags for each kind of resource that the call makes.
 * @throws ApiError InvalidParameterValue for a kind that it does not make, one named twice, or one without tags
 */
export function readTagSpecifications(
  specifications: readonly TagSpecification[] | undefined,
  taggable: readonly ResourceType[],
): Map<ResourceType, Tags> {
  const read = new Map<ResourceType, Tags>();
  for (const { ResourceType: type, Tags: tags } of specifications ?? []) {
    if (type === undefined) {
      throw errors.invalidValue(
        'TagSpecification.ResourceType',
        '',
        'Tag specification resource type must have a value',
      );
    }
    const known = taggable.find((candidate) => candidate === type);
    if (known === undefined) {
      const reason = `'${type}' is not a valid taggable resource type for this operation.`;
      throw errors.invalidValue('TagSpecification.ResourceType', type, reason);
    }
    if (read.has(known)) {
      throw errors.invalidValue(
        'TagSpecification.ResourceType',
        type,
        'The same resource type may not be specified more than once.',
      );
    }
    if (tags === undefined || tags.length === 0) {
      throw errors.invalidValue('TagSpecification.Tag', '', 'Tag specification must have at least one tag');
    }
    read.set(known, readTags(tags));
  }
  return read;
}

/** A limit in characters counts what a person would: code points. */
function characters(text: string): number {
  return [...text].length;
}
