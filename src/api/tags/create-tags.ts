import type { CreateTagsRequest } from '@aws-sdk/client-ec2';
import { putTags, tagsOf } from '../../catalog/tags.ts';
import { requestTags } from '../authorization.ts';
import { errors } from '../errors.ts';
import type { Operation } from '../operation.ts';
import { refreshRecords } from '../snapshots/stored-records.ts';
import { readResource, requireResource, snapshotsAmong } from './resources.ts';
import { checkTagCount, readTags } from './tag-rules.ts';

export const createTags: Operation<CreateTagsRequest, object> = {
  honoured: ['Resources', 'Tags'],

  async run(input, call) {
    const resources = (input.Resources ?? []).map(readResource);
    if (resources.length === 0) throw errors.missing('ResourceId');
    const tags = readTags(input.Tags);
    if (tags.size === 0) throw errors.missing('Tag');
    await call.permit(...resources.map(({ id, type }) => ({ id, type, context: requestTags(tags) })));
    const { catalog, lifecycle } = call.services;
    const ids = resources.map(({ id }) => id);
    await lifecycle.locks.hold(ids, async () => {
      for (const resource of resources) await requireResource(call, resource);
      const present = await tagsOf(catalog, ids);
      for (const id of ids) checkTagCount(new Map([...(present.get(id) ?? []), ...tags]));
      // All or none: the tags of many resources change in one step.
      await catalog.transaction().execute(async (transaction) => {
        for (const { id, type } of resources) {
          await putTags(
            transaction,
            { resourceId: id, resourceType: type, accountId: call.caller.accountId, region: call.region },
            tags,
          );
        }
        await lifecycle.records.markStale(transaction, snapshotsAmong(resources));
      });
      await refreshRecords(call, snapshotsAmong(resources));
    });
    return {};
  },
};
