import type { ResourceType } from '../../catalog/schema.ts';
import { type AccountId, knownId, parseId, type SnapshotId } from '../../types/ids.ts';
import type { ApiError } from '../../wire/api-error.ts';
import { errors } from '../errors.ts';
import type { Call } from '../operation.ts';

/** What CreateTags works on. */
type TaggableType = Exclude<ResourceType, 'replace-root-volume-task'>;

export type Resource = { id: string; type: TaggableType };

const NOT_FOUND: Record<TaggableType, (id: string) => ApiError> = {
  snapshot: errors.noSnapshot,
  volume: errors.noVolume,
  instance: errors.noInstance,
  image: errors.noImage,
};

/** Which resource an id names, by its form. @throws ApiError InvalidID */
export function readResource(id: string): Resource {
  if (parseId('snap', id) !== undefined) return { id, type: 'snapshot' };
  if (parseId('vol', id) !== undefined) return { id, type: 'volume' };
  if (parseId('i', id) !== undefined) return { id, type: 'instance' };
  if (parseId('ami', id) !== undefined) return { id, type: 'image' };
  throw errors.unknownResource(id);
}

export function snapshotsAmong(resources: readonly Resource[]): SnapshotId[] {
  return resources.flatMap(({ id, type }) => (type === 'snapshot' ? [knownId('snap', id)] : []));
}

/** @throws ApiError the NotFound of its kind when the caller has no such resource */
export async function requireResource(call: Call, resource: Resource): Promise<void> {
  const owner = await ownerOf(call, resource);
  if (owner !== call.caller.accountId) throw NOT_FOUND[resource.type](resource.id);
}

async function ownerOf(call: Call, resource: Resource): Promise<AccountId | undefined> {
  const { catalog } = call.services;
  switch (resource.type) {
    case 'snapshot':
      return (
        await catalog
          .selectFrom('snapshots')
          .select('account_id')
          .where('snapshot_id', '=', knownId('snap', resource.id))
          .executeTakeFirst()
      )?.account_id;
    case 'volume':
      return (
        await catalog
          .selectFrom('volumes')
          .select('account_id')
          .where('volume_id', '=', knownId('vol', resource.id))
          .executeTakeFirst()
      )?.account_id;
    case 'instance':
      return (
        await catalog
          .selectFrom('instances')
          .select('account_id')
          .where('instance_id', '=', knownId('i', resource.id))
          .executeTakeFirst()
      )?.account_id;
    case 'image':
      return (
        await catalog
          .selectFrom('images')
          .select('account_id')
          .where('image_id', '=', knownId('ami', resource.id))
          .executeTakeFirst()
      )?.account_id;
    default:
      return resource.type satisfies never;
  }
}
