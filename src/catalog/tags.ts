import type { AccountId } from '../types/ids.ts';
import type { Catalog } from './catalog.ts';
import type { ResourceType } from './schema.ts';

export type TagOwner = { resourceId: string; resourceType: ResourceType; accountId: AccountId; region: string };

const IDS_AT_ONCE = 500;

/** Sets tags; a key that is there gets the new value. */
export async function putTags(catalog: Catalog, owner: TagOwner, tags: ReadonlyMap<string, string>): Promise<void> {
  for (const [tag_key, tag_value] of tags) {
    await catalog
      .insertInto('tags')
      .values({
        resource_id: owner.resourceId,
        resource_type: owner.resourceType,
        account_id: owner.accountId,
        region: owner.region,
        tag_key,
        tag_value,
      })
      .onConflict((conflict) => conflict.columns(['resource_id', 'tag_key']).doUpdateSet({ tag_value }))
      .execute();
  }
}

/** The tags of many resources, by resource id; keys in order. */
export async function tagsOf(
  catalog: Catalog,
  resourceIds: readonly string[],
): Promise<Map<string, Map<string, string>>> {
  const found = new Map<string, Map<string, string>>();
  for (let at = 0; at < resourceIds.length; at += IDS_AT_ONCE) {
    const rows = await catalog
      .selectFrom('tags')
      .select(['resource_id', 'tag_key', 'tag_value'])
      .where('resource_id', 'in', resourceIds.slice(at, at + IDS_AT_ONCE))
      .orderBy('tag_key')
      .execute();
    for (const row of rows) {
      const tags = found.get(row.resource_id) ?? new Map<string, string>();
      tags.set(row.tag_key, row.tag_value);
      found.set(row.resource_id, tags);
    }
  }
  return found;
}

export async function removeTags(catalog: Catalog, resourceId: string): Promise<void> {
  await catalog.deleteFrom('tags').where('resource_id', '=', resourceId).execute();
}
