import type { DeleteTagsRequest } from '@aws-sdk/client-ec2';
import { errors } from '../errors.ts';
import type { Operation } from '../operation.ts';
import { refreshRecords } from '../snapshots/stored-records.ts';
import { readResource, requireResource, snapshotsAmong } from './resources.ts';

export const deleteTags: Operation<DeleteTagsRequest, object> = {
  honoured: ['Resources', 'Tags'],

  async run(input, call) {
    const resources = (input.Resources ?? []).map(readResource);
    if (resources.length === 0) throw errors.missing('ResourceId');
    for (const { Key } of input.Tags ?? []) {
      if (Key === undefined) throw errors.missing('Tag.Key');
      if (/^aws:/i.test(Key)) throw errors.reservedTag(Key);
    }
    const keys = (input.Tags ?? []).map(({ Key = '' }) => Key);
    const context = keys.length > 0 ? { 'aws:TagKeys': keys } : {};
    await call.permit(...resources.map(({ id, type }) => ({ id, type, context })));
    const { catalog, lifecycle } = call.services;
    const ids = resources.map(({ id }) => id);
    await lifecycle.locks.hold(ids, async () => {
      for (const resource of resources) await requireResource(call, resource);
      await catalog.transaction().execute(async (transaction) => {
        const all = transaction.deleteFrom('tags').where('resource_id', 'in', ids);
        // Without tags: all of the user's own. With a value (the empty one is a value): only where it is equal.
        if (input.Tags === undefined) await all.where('tag_key', 'not like', 'aws:%').execute();
        for (const { Key, Value } of input.Tags ?? []) {
          const named = all.where('tag_key', '=', Key ?? '');
          await (Value === undefined ? named : named.where('tag_value', '=', Value)).execute();
        }
        await lifecycle.records.markStale(transaction, snapshotsAmong(resources));
      });
      await refreshRecords(call, snapshotsAmong(resources));
    });
    return {};
  },
};
