import type { CreateImageRequest, CreateImageResult } from '@aws-sdk/client-ec2';
import type { ImageId } from '../../types/ids.ts';
import { making } from '../authorization.ts';
import { errors } from '../errors.ts';
import { readInstanceId } from '../identifiers.ts';
import { checkMappings, REFUSED_IN_MAPPINGS } from '../instances/device-plan.ts';
import { findInstance } from '../instances/find-instance.ts';
import type { Operation } from '../operation.ts';
import { cutSet } from '../snapshots/cut-set.ts';
import { checkDescription } from '../snapshots/snapshot-rules.ts';
import { readTagSpecifications } from '../tags/tag-rules.ts';
import { attachedVolumes } from '../volumes/attached-volumes.ts';
import { checkImageName, insertImage, refuseEncryption, requireFreeName } from './image-rules.ts';

/**
 * An image of an instance: all its volumes, cut at one instant. It is `pending` until they are stored. Nothing is
 * rebooted, whatever NoReboot says: the cut is consistent without.
 */
export const createImage: Operation<CreateImageRequest, CreateImageResult> = {
  honoured: ['InstanceId', 'Name', 'Description', 'BlockDeviceMappings', 'TagSpecifications'],
  withoutEffect: ['NoReboot'],
  // The volumes are what they are.
  refused: [
    ...REFUSED_IN_MAPPINGS,
    ...['Iops', 'KmsKeyId', 'SnapshotId', 'Throughput', 'VolumeSize', 'VolumeType'].map(
      (member) => `BlockDeviceMappings.Ebs.${member}`,
    ),
  ],

  async run(input, call) {
    const instanceId = readInstanceId(input.InstanceId);
    const name = checkImageName(input.Name);
    const description = checkDescription(input.Description);
    checkMappings(input.BlockDeviceMappings);
    refuseEncryption(input.BlockDeviceMappings);
    const tags = readTagSpecifications(input.TagSpecifications, ['image', 'snapshot']);
    const asked = new Map((input.BlockDeviceMappings ?? []).map((mapping) => [mapping.DeviceName, mapping]));
    await call.permit(
      { type: 'instance', id: instanceId },
      async () => making(call, 'image', tags.get('image') ?? new Map(), { 'ec2:Owner': call.caller.accountId }),
      async () => making(call, 'snapshot', tags.get('snapshot') ?? new Map(), { 'ec2:Owner': call.caller.accountId }),
    );
    const { catalog, lifecycle } = call.services;
    return lifecycle.locks.hold([instanceId, `images ${call.caller.accountId}`], async () => {
      const instance = await findInstance(call, instanceId);
      if (instance.state !== 'running' && instance.state !== 'stopped') {
        throw errors.instanceState(instanceId, instance.state, 'running or stopped');
      }
      await requireFreeName(call, name);
      const attached = await attachedVolumes(catalog, instanceId);
      const volumes = attached.filter((volume) => asked.get(volume.device_name)?.NoDevice === undefined);
      if (!volumes.some((volume) => volume.device_name === instance.root_device_name)) {
        throw errors.combination(`Instance '${instanceId}' has no root volume to make an image of.`);
      }
      let imageId: ImageId | undefined;
      await cutSet(call, {
        instanceId,
        description: `Created by CreateImage(${instanceId}) for ${name}`,
        volumes: volumes.map((volume) => ({
          volume,
          device: { name: volume.device_name, isRoot: volume.device_name === instance.root_device_name },
          tags: tags.get('snapshot') ?? new Map(),
        })),
        async also(transaction, snapshotIds) {
          imageId = await insertImage(transaction, call, {
            name,
            description,
            rootDeviceName: instance.root_device_name,
            computer: { architecture: 'x86_64', virtualization_type: 'hvm', ena_support: 0, sriov_net_support: null },
            tags: tags.get('image') ?? new Map(),
            devices: volumes.map((volume, index) => {
              const goes =
                asked.get(volume.device_name)?.Ebs?.DeleteOnTermination ?? volume.delete_on_termination === 1;
              return {
                device_name: volume.device_name,
                snapshot_id: snapshotIds[index],
                size_gib: volume.size_gib,
                volume_type: volume.volume_type,
                iops: volume.iops,
                throughput: volume.throughput,
                delete_on_termination: goes ? 1 : 0,
              };
            }),
          });
        },
      });
      return { ImageId: imageId };
    });
  },
};
