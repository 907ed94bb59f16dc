import type { DescribeTagsRequest, DescribeTagsResult } from '@aws-sdk/client-ec2';
import type { TagRow } from '../../catalog/schema.ts';
import { errors } from '../errors.ts';
import { compileFilters, type FilterTable } from '../filters.ts';
import type { Operation } from '../operation.ts';
import { fillPage } from '../pages.ts';

const FILTERS: FilterTable<TagRow> = {
  key: (tag) => tag.tag_key,
  'resource-id': (tag) => tag.resource_id,
  'resource-type': (tag) => tag.resource_type,
  value: (tag) => tag.tag_value,
};

/** Ids have no such character, so that `id|key` sorts as (id, key) does. */
const SEPARATOR = '|';

export const describeTags: Operation<DescribeTagsRequest, DescribeTagsResult> = {
  honoured: ['Filters', 'MaxResults', 'NextToken'],

  async run(input, call) {
    for (const filter of input.Filters ?? []) if (filter.Name === 'tag-key') throw errors.invalidFilter(filter.Name);
    const matches = compileFilters(input.Filters, FILTERS, (tag) => new Map([[tag.tag_key, tag.tag_value]]));
    await call.permit();
    const page = await fillPage(
      call,
      input,
      { least: 5, most: 1000 },
      (after, most) => {
        const [id, ...key] = after.split(SEPARATOR);
        return call.services.catalog
          .selectFrom('tags')
          .selectAll()
          .where('account_id', '=', call.caller.accountId)
          .where('region', '=', call.region)
          .where((where) =>
            where.or([
              where('resource_id', '>', id),
              where.and([where('resource_id', '=', id), where('tag_key', '>', key.join(SEPARATOR))]),
            ]),
          )
          .orderBy('resource_id')
          .orderBy('tag_key')
          .limit(most)
          .execute();
      },
      (row) => `${row.resource_id}${SEPARATOR}${row.tag_key}`,
      async (rows) => rows,
      matches,
    );
    return {
      Tags: page.items.map((tag) => ({
        ResourceId: tag.resource_id,
        ResourceType: tag.resource_type,
        Key: tag.tag_key,
        Value: tag.tag_value,
      })),
      NextToken: page.nextToken,
    };
  },
};
