import type { BlockDeviceMapping, RegisterImageRequest, RegisterImageResult } from '@aws-sdk/client-ec2';
import type { ImageDeviceRow } from '../../catalog/schema.ts';
import { making } from '../authorization.ts';
import { errors } from '../errors.ts';
import { readSnapshotId } from '../identifiers.ts';
import { checkMappings, REFUSED_IN_MAPPINGS } from '../instances/device-plan.ts';
import type { Call, Operation } from '../operation.ts';
import { checkDescription } from '../snapshots/snapshot-rules.ts';
import { readTagSpecifications } from '../tags/tag-rules.ts';
import { findRestorable, volumeSize } from '../volumes/new-volume.ts';
import { checkVolumeShape } from '../volumes/volume-types.ts';
import { checkImageName, insertImage, refuseEncryption, requireFreeName } from './image-rules.ts';

/** An image of snapshots that are there. */
export const registerImage: Operation<RegisterImageRequest, RegisterImageResult> = {
  honoured: [
    'ImageLocation',
    'Name',
    'Description',
    'RootDeviceName',
    'BlockDeviceMappings',
    'TagSpecifications',
    'Architecture',
    'EnaSupport',
    'SriovNetSupport',
    'VirtualizationType',
  ],
  refused: [...REFUSED_IN_MAPPINGS, 'BlockDeviceMappings.Ebs.KmsKeyId'],
  withoutEffect: ['BootMode', 'ImdsSupport', 'KernelId', 'RamdiskId', 'TpmSupport', 'UefiData'],

  async run(input, call) {
    const name = checkImageName(input.Name);
    const description = checkDescription(input.Description);
    const rootDeviceName = input.RootDeviceName;
    if (rootDeviceName === undefined) throw errors.missing('RootDeviceName');
    // Tools send it empty.
    if ((input.ImageLocation ?? '') !== '')
      throw errors.unsupported('ImageLocation: images here are made of snapshots.');
    checkMappings(input.BlockDeviceMappings);
    refuseEncryption(input.BlockDeviceMappings);
    const mappings = (input.BlockDeviceMappings ?? []).filter((mapping) => mapping.NoDevice === undefined);
    const root = mappings.find((mapping) => mapping.DeviceName === rootDeviceName);
    if (root?.Ebs?.SnapshotId === undefined) {
      const reason = 'The block device mappings must map the root device to a snapshot.';
      throw errors.invalidValue('RootDeviceName', rootDeviceName, reason);
    }
    const tags = readTagSpecifications(input.TagSpecifications, ['image']).get('image') ?? new Map();
    const sources = mappings.flatMap(({ Ebs }) =>
      Ebs?.SnapshotId === undefined ? [] : [readSnapshotId(Ebs.SnapshotId)],
    );
    await call.permit(...sources.map((id) => ({ type: 'snapshot' as const, id })), async () =>
      making(call, 'image', tags, { 'ec2:Owner': call.caller.accountId }),
    );
    const { catalog, lifecycle } = call.services;
    return lifecycle.locks.hold([`images ${call.caller.accountId}`], async () => {
      await requireFreeName(call, name);
      const devices = await Promise.all(mappings.map((mapping) => imageDevice(call, mapping)));
      const computer = {
        architecture: input.Architecture ?? 'x86_64',
        virtualization_type: input.VirtualizationType ?? 'hvm',
        ena_support: input.EnaSupport === true ? (1 as const) : (0 as const),
        sriov_net_support: input.SriovNetSupport ?? null,
      };
      const image = { name, description, rootDeviceName, devices, tags, computer };
      return { ImageId: await catalog.transaction().execute((transaction) => insertImage(transaction, call, image)) };
    });
  },
};

async function imageDevice(call: Call, mapping: BlockDeviceMapping): Promise<Omit<ImageDeviceRow, 'image_id'>> {
  const { Ebs, DeviceName = '' } = mapping;
  if (Ebs === undefined) throw errors.missing(`BlockDeviceMapping.Ebs (of ${DeviceName})`);
  const source = Ebs.SnapshotId === undefined ? undefined : await findRestorable(call, readSnapshotId(Ebs.SnapshotId));
  const shape = checkVolumeShape({
    type: Ebs.VolumeType,
    sizeGiB: volumeSize(Ebs.VolumeSize, source),
    iops: Ebs.Iops,
    throughput: Ebs.Throughput,
  });
  return {
    device_name: DeviceName,
    snapshot_id: source?.snapshot_id ?? null,
    size_gib: shape.sizeGiB,
    volume_type: shape.type,
    iops: shape.iops,
    throughput: shape.throughput,
    delete_on_termination: Ebs.DeleteOnTermination === false ? 0 : 1,
  };
}
