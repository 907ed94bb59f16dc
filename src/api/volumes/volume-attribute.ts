import type {
  DescribeVolumeAttributeRequest,
  DescribeVolumeAttributeResult,
  ModifyVolumeAttributeRequest,
} from '@aws-sdk/client-ec2';
import { errors } from '../errors.ts';
import { readVolumeId } from '../identifiers.ts';
import type { Operation } from '../operation.ts';
import { findVolume } from './find-volume.ts';

export const describeVolumeAttribute: Operation<DescribeVolumeAttributeRequest, DescribeVolumeAttributeResult> = {
  honoured: ['VolumeId', 'Attribute'],

  async run(input, call) {
    const volumeId = readVolumeId(input.VolumeId);
    const attribute = input.Attribute;
    if (attribute === undefined) throw errors.missing('Attribute');
    if (attribute !== 'autoEnableIO' && attribute !== 'productCodes') {
      throw errors.invalidValue('Attribute', attribute, 'Expected autoEnableIO or productCodes.');
    }
    await call.permit({ type: 'volume', id: volumeId });
    const volume = await findVolume(call, volumeId);
    if (attribute === 'productCodes') return { VolumeId: volumeId, ProductCodes: [] };
    return { VolumeId: volumeId, AutoEnableIO: { Value: volume.auto_enable_io === 1 } };
  },
};

/** Whether I/O goes on by itself after a suspicion. A volume here that cannot be trusted stops, whatever this says. */
export const modifyVolumeAttribute: Operation<ModifyVolumeAttributeRequest, object> = {
  honoured: ['VolumeId', 'AutoEnableIO'],

  async run(input, call) {
    const volumeId = readVolumeId(input.VolumeId);
    const value = input.AutoEnableIO?.Value;
    if (value === undefined) throw errors.missing('AutoEnableIO.Value');
    await call.permit({ type: 'volume', id: volumeId });
    await findVolume(call, volumeId);
    await call.services.catalog
      .updateTable('volumes')
      .set({ auto_enable_io: value ? 1 : 0 })
      .where('volume_id', '=', volumeId)
      .execute();
    return {};
  },
};
