import type {
  DescribeInstanceAttributeRequest,
  InstanceAttribute,
  InstanceAttributeName,
  ModifyInstanceAttributeRequest,
} from '@aws-sdk/client-ec2';
import type { Catalog } from '../../catalog/catalog.ts';
import type { InstanceRow } from '../../catalog/schema.ts';
import type { InstanceId, VolumeId } from '../../types/ids.ts';
import { errors } from '../errors.ts';
import { readInstanceId } from '../identifiers.ts';
import type { Call, Operation } from '../operation.ts';
import { attachedVolumes } from '../volumes/attached-volumes.ts';
import { findInstance } from './find-instance.ts';
import { instanceView, withDevices } from './instance-view.ts';

/** What each attribute is. Those of a computer (kernel, user data …) have the value of one that has none. */
const READERS: Partial<
  Record<InstanceAttributeName, (instance: InstanceRow, call: Call) => Promise<InstanceAttribute>>
> = {
  blockDeviceMapping: async (instance, call) => {
    const [devices] = await withDevices(call.services.catalog, [instance]);
    return { BlockDeviceMappings: instanceView(devices).BlockDeviceMappings };
  },
  disableApiStop: async () => ({ DisableApiStop: { Value: false } }),
  disableApiTermination: async (instance) => ({ DisableApiTermination: { Value: instance.protected === 1 } }),
  ebsOptimized: async () => ({ EbsOptimized: { Value: false } }),
  enaSupport: async () => ({ EnaSupport: { Value: false } }),
  enclaveOptions: async () => ({ EnclaveOptions: { Enabled: false } }),
  groupSet: async () => ({ Groups: [] }),
  instanceInitiatedShutdownBehavior: async () => ({ InstanceInitiatedShutdownBehavior: { Value: 'stop' } }),
  instanceType: async (instance) => ({ InstanceType: { Value: instance.instance_type } }),
  kernel: async () => ({ KernelId: {} }),
  productCodes: async () => ({ ProductCodes: [] }),
  ramdisk: async () => ({ RamdiskId: {} }),
  rootDeviceName: async (instance) => ({ RootDeviceName: { Value: instance.root_device_name } }),
  sourceDestCheck: async () => ({ SourceDestCheck: { Value: true } }),
  sriovNetSupport: async () => ({ SriovNetSupport: {} }),
  userData: async () => ({ UserData: {} }),
};

export const describeInstanceAttribute: Operation<DescribeInstanceAttributeRequest, InstanceAttribute> = {
  honoured: ['InstanceId', 'Attribute'],

  async run(input, call) {
    const instanceId = readInstanceId(input.InstanceId);
    const attribute = input.Attribute;
    if (attribute === undefined) throw errors.missing('Attribute');
    const read = Object.hasOwn(READERS, attribute) ? READERS[attribute] : undefined;
    if (read === undefined) {
      throw errors.invalidValue('Attribute', attribute, `Expected one of ${Object.keys(READERS).join(', ')}.`);
    }
    await call.permit({ type: 'instance', id: instanceId });
    const instance = await findInstance(call, instanceId);
    return { InstanceId: instanceId, ...(await read(instance, call)) };
  },
};

export const modifyInstanceAttribute: Operation<ModifyInstanceAttributeRequest, object> = {
  honoured: ['InstanceId', 'Attribute', 'Value', 'InstanceType', 'DisableApiTermination', 'BlockDeviceMappings'],
  refused: ['BlockDeviceMappings.Ebs.VolumeId', 'BlockDeviceMappings.NoDevice', 'BlockDeviceMappings.VirtualName'],
  // Of a computer, which is not here.
  withoutEffect: [
    'DisableApiStop',
    'EbsOptimized',
    'EnaSupport',
    'Groups',
    'InstanceInitiatedShutdownBehavior',
    'Kernel',
    'Ramdisk',
    'SourceDestCheck',
    'SriovNetSupport',
    'UserData',
  ],

  async run(input, call) {
    const instanceId = readInstanceId(input.InstanceId);
    const type = input.InstanceType?.Value ?? (input.Attribute === 'instanceType' ? input.Value : undefined);
    const protectedValue =
      input.DisableApiTermination?.Value ??
      (input.Attribute === 'disableApiTermination' ? input.Value === 'true' : undefined);
    await call.permit({ type: 'instance', id: instanceId });
    await call.services.lifecycle.locks.hold([instanceId], async () => {
      const instance = await findInstance(call, instanceId);
      if (type !== undefined && instance.state !== 'stopped') {
        throw errors.instanceState(instanceId, instance.state, 'stopped');
      }
      const { catalog } = call.services;
      const goes = await deletions(catalog, instanceId, input.BlockDeviceMappings ?? []);
      const changes = {
        ...(type === undefined ? {} : { instance_type: type }),
        ...(protectedValue === undefined ? {} : { protected: protectedValue ? (1 as const) : (0 as const) }),
      };
      // All of what was asked for, or none.
      await catalog.transaction().execute(async (transaction) => {
        for (const [volumeId, delete_on_termination] of goes) {
          await transaction
            .updateTable('attachments')
            .set({ delete_on_termination })
            .where('instance_id', '=', instanceId)
            .where('volume_id', '=', volumeId)
            .execute();
        }
        if (Object.keys(changes).length === 0) return;
        await transaction.updateTable('instances').set(changes).where('instance_id', '=', instanceId).execute();
      });
    });
    return {};
  },
};

/** Which volumes are to go when the instance does, and which not. @throws ApiError where none is attached */
async function deletions(
  catalog: Catalog,
  instanceId: InstanceId,
  mappings: NonNullable<ModifyInstanceAttributeRequest['BlockDeviceMappings']>,
): Promise<Map<VolumeId, 0 | 1>> {
  const attached = await attachedVolumes(catalog, instanceId);
  const goes = new Map<VolumeId, 0 | 1>();
  for (const { DeviceName, Ebs } of mappings) {
    const volume = attached.find((each) => each.device_name === DeviceName);
    if (volume === undefined) {
      throw errors.invalidValue('BlockDeviceMapping.DeviceName', DeviceName, `No volume is attached there.`);
    }
    if (Ebs?.DeleteOnTermination !== undefined) goes.set(volume.volume_id, Ebs.DeleteOnTermination ? 1 : 0);
  }
  return goes;
}
