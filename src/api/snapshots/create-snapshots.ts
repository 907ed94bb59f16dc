import type { CreateSnapshotsRequest, CreateSnapshotsResult } from '@aws-sdk/client-ec2';
import type { InstanceRow } from '../../catalog/schema.ts';
import { tagsOf } from '../../catalog/tags.ts';
import type { VolumeId } from '../../types/ids.ts';
import { making, type Target } from '../authorization.ts';
import { errors } from '../errors.ts';
import { readInstanceId, readVolumeId } from '../identifiers.ts';
import { findInstance } from '../instances/find-instance.ts';
import type { Call, Operation } from '../operation.ts';
import { checkTagCount, readTagSpecifications, type Tags } from '../tags/tag-rules.ts';
import { tagView } from '../tags/tag-view.ts';
import { type AttachedVolume, attachedVolumes } from '../volumes/attached-volumes.ts';
import { cutSet, makingSnapshot } from './cut-set.ts';
import { checkDescription, refusePlacement } from './snapshot-rules.ts';

const MAX_EXCLUDED_VOLUMES = 40;
const MAX_SET_VOLUMES = 128;

/**
 * Crash-consistent snapshots of all the volumes attached to an instance, cut at one instant.
 * @see AWS, EC2 API Reference, CreateSnapshots
 */
export const createSnapshots: Operation<CreateSnapshotsRequest, CreateSnapshotsResult> = {
  honoured: [
    'InstanceSpecification',
    'Description',
    'TagSpecifications',
    'CopyTagsFromSource',
    'OutpostArn',
    'Location',
  ],

  async run(input, call) {
    const description = checkDescription(input.Description);
    refusePlacement(input.OutpostArn, input.Location);
    const copyTags = readCopyTags(input.CopyTagsFromSource);
    const ownTags = readTagSpecifications(input.TagSpecifications, ['snapshot']).get('snapshot') ?? new Map();
    const specification = input.InstanceSpecification;
    const instanceId = readInstanceId(specification?.InstanceId, 'InstanceSpecification.InstanceId');
    const excluded = readExcluded(specification?.ExcludeDataVolumeIds);
    const excludeRoot = specification?.ExcludeBootVolume ?? false;
    // What the set would be of, as far as it is known; and again below, of what it is then.
    await call.permit({ type: 'instance', id: instanceId }, async () => {
      const { catalog } = call.services;
      const instance = await catalog
        .selectFrom('instances')
        .select('root_device_name')
        .where('instance_id', '=', instanceId)
        .where('account_id', '=', call.caller.accountId)
        .executeTakeFirst();
      if (instance === undefined) return making(call, 'snapshot', ownTags);
      const chosen = (await attachedVolumes(catalog, instanceId)).filter(
        ({ volume_id, device_name }) =>
          !excluded.has(volume_id) && !(excludeRoot && device_name === instance.root_device_name),
      );
      return targetsOf(call, chosen, copyTags, ownTags);
    });
    // Attaching and detaching wait: the set is of the volumes that the instance has now.
    return call.services.lifecycle.locks.hold([instanceId], async () => {
      const instance = await findInstance(call, instanceId);
      if (instance.state === 'terminated' || instance.state === 'shutting-down') {
        throw errors.instanceState(instanceId, instance.state, 'running or stopped');
      }
      const attached = await attachedVolumes(call.services.catalog, instanceId);
      const chosen = chooseVolumes(instance, attached, excludeRoot, excluded);
      await call.alsoPermit(() => targetsOf(call, chosen, copyTags, ownTags));
      const tags = await tagsForEach(call, chosen, copyTags, ownTags);
      const { snapshotIds, startedAt } = await cutSet(call, {
        instanceId,
        description,
        volumes: chosen.map((volume) => ({
          volume,
          device: { name: volume.device_name, isRoot: volume.device_name === instance.root_device_name },
          tags: tags.get(volume.volume_id) ?? new Map(),
        })),
      });
      return {
        Snapshots: chosen.map((volume, index) => ({
          SnapshotId: snapshotIds[index],
          VolumeId: volume.volume_id,
          Description: description,
          Tags: tagView(tags.get(volume.volume_id)),
          Encrypted: volume.data_key_id !== null,
          State: 'pending',
          VolumeSize: volume.size_gib,
          StartTime: startedAt,
          Progress: '0%',
          OwnerId: call.caller.accountId,
        })),
      };
    });
  },
};

/** Each volume, and each snapshot to be. */
async function targetsOf(
  call: Call,
  volumes: readonly AttachedVolume[],
  copyTags: boolean,
  ownTags: Tags,
): Promise<Target[]> {
  const tags = await tagsForEach(call, volumes, copyTags, ownTags);
  return volumes.flatMap((volume) => [
    { type: 'volume' as const, id: volume.volume_id },
    ...makingSnapshot(call, volume, tags.get(volume.volume_id) ?? new Map()),
  ]);
}

function readCopyTags(source: string | undefined): boolean {
  if (source === undefined) return false;
  if (source !== 'volume') throw errors.invalidValue('CopyTagsFromSource', source, "Expected 'volume'.");
  return true;
}

function readExcluded(ids: readonly string[] | undefined): Set<VolumeId> {
  const excluded = new Set<VolumeId>();
  const name = 'InstanceSpecification.ExcludeDataVolumeId';
  for (const id of ids ?? []) excluded.add(readVolumeId(id, name));
  if (excluded.size > MAX_EXCLUDED_VOLUMES) {
    throw errors.invalidValue(name, excluded.size, `At most ${MAX_EXCLUDED_VOLUMES} volumes can be excluded.`);
  }
  return excluded;
}

function chooseVolumes(
  instance: InstanceRow,
  attached: readonly AttachedVolume[],
  excludeRoot: boolean,
  excluded: ReadonlySet<VolumeId>,
): AttachedVolume[] {
  const name = 'InstanceSpecification.ExcludeDataVolumeId';
  for (const id of excluded) {
    const volume = attached.find((candidate) => candidate.volume_id === id);
    if (volume === undefined) {
      throw errors.invalidValue(name, id, `The volume is not attached to instance '${instance.instance_id}'.`);
    }
    if (volume.device_name === instance.root_device_name) {
      throw errors.invalidValue(name, id, 'It is the root volume; exclude that with ExcludeBootVolume.');
    }
  }
  const chosen = attached.filter(
    (volume) => !excluded.has(volume.volume_id) && !(excludeRoot && volume.device_name === instance.root_device_name),
  );
  if (chosen.length === 0) {
    throw errors.combination(
      attached.length === 0
        ? `The instance '${instance.instance_id}' has no attached volumes.`
        : `Nothing is left to snapshot: every volume of instance '${instance.instance_id}' is excluded.`,
    );
  }
  if (chosen.length > MAX_SET_VOLUMES) {
    throw errors.invalidValue(
      'InstanceSpecification.InstanceId',
      instance.instance_id,
      `The instance has ${chosen.length} volumes to snapshot; a set holds at most ${MAX_SET_VOLUMES}.`,
    );
  }
  return chosen;
}

/** A tag of the request wins over one copied from the volume. */
async function tagsForEach(
  call: Call,
  volumes: readonly AttachedVolume[],
  copyTags: boolean,
  ownTags: Tags,
): Promise<Map<VolumeId, Tags>> {
  const ids = volumes.map((volume) => volume.volume_id);
  const sources = copyTags ? await tagsOf(call.services.catalog, ids) : new Map<string, Tags>();
  const result = new Map<VolumeId, Tags>();
  for (const id of ids) {
    const copied = [...(sources.get(id) ?? [])].filter(([key]) => !key.startsWith('aws:'));
    const tags: Tags = new Map([...copied, ...ownTags]);
    checkTagCount(tags);
    result.set(id, tags);
  }
  return result;
}
