import type { DescribeTagsRequest, DescribeTagsResult, Filter } from '@aws-sdk/client-ec2';
import { type SqlBool, sql } from 'kysely';
import type { TagRow } from '../../catalog/schema.ts';
import { errors } from '../errors.ts';
import { compileFilters, type FilterTable } from '../filters.ts';
import { conditionsOn, exactValues, narrowing } from '../narrowing.ts';
import type { Call, Operation } from '../operation.ts';
import { fillPage, type Rows, STRETCH_ROWS } from '../pages.ts';

const FILTERS: FilterTable<TagRow> = {
  key: (tag) => tag.tag_key,
  'resource-id': (tag) => tag.resource_id,
  'resource-type': (tag) => tag.resource_type,
  value: (tag) => tag.tag_value,
};

const COLUMNS = {
  key: sql.ref('tag_key'),
  'resource-id': sql.ref('resource_id'),
  'resource-type': sql.ref('resource_type'),
  value: sql.ref('tag_value'),
};

/** Ids have no such character. */
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
      tagRows(call, narrowing(input.Filters)),
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

/** The tags that may match: by the primary key. (The plus keeps SQLite from sorting all of the account's, for each page.) */
function tagRows(call: Call, filters: Filter[]): Rows<TagRow> {
  const { catalog } = call.services;
  const conditions = conditionsOn(filters, COLUMNS);
  const isAfter = (after: string) => {
    const [id, ...key] = after.split(SEPARATOR);
    return sql<SqlBool>`(resource_id, tag_key) > (${id}, ${key.join(SEPARATOR)})`;
  };
  const idOf = (row: Pick<TagRow, 'resource_id' | 'tag_key'>): string => `${row.resource_id}${SEPARATOR}${row.tag_key}`;
  return {
    fetch: (after, most, until) => {
      let query = catalog
        .selectFrom('tags')
        .selectAll()
        .where(sql<SqlBool>`+account_id = ${call.caller.accountId}`)
        .where('region', '=', call.region)
        .where(isAfter(after))
        .orderBy('resource_id')
        .orderBy('tag_key')
        .limit(most);
      for (const condition of conditions) query = query.where(condition);
      if (until !== undefined) query = query.where(sql<SqlBool>`not ${isAfter(until)}`);
      return query.execute();
    },
    idOf,
    // Other accounts' tags lie between one's own, and are left out as well.
    stretchEnd:
      exactValues(filters, 'resource-id') !== undefined
        ? undefined
        : async (after) => {
            const end = await catalog
              .selectFrom('tags')
              .select(['resource_id', 'tag_key'])
              .where(isAfter(after))
              .orderBy('resource_id')
              .orderBy('tag_key')
              .offset(STRETCH_ROWS)
              .limit(1)
              .executeTakeFirst();
            return end && idOf(end);
          },
  };
}
