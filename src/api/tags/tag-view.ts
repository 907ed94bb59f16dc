import type { Tag } from '@aws-sdk/client-ec2';

/** Tags as the API shows them; undefined (no element) where there are none. */
export function tagView(tags: ReadonlyMap<string, string> | undefined): Tag[] | undefined {
  if (tags === undefined || tags.size === 0) return undefined;
  return [...tags].map(([Key, Value]) => ({ Key, Value }));
}
