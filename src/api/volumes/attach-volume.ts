import type { AttachVolumeRequest, VolumeAttachment } from '@aws-sdk/client-ec2';
import type { AttachmentRow } from '../../catalog/schema.ts';
import { errors } from '../errors.ts';
import { readInstanceId, readVolumeId } from '../identifiers.ts';
import { findInstance } from '../instances/find-instance.ts';
import type { Operation } from '../operation.ts';
import { attachedVolumes, removeAttachment } from './attached-volumes.ts';
import { checkDeviceName } from './device-names.ts';
import { findVolume } from './find-volume.ts';
import { attachmentView } from './volume-view.ts';

export const attachVolume: Operation<AttachVolumeRequest, VolumeAttachment> = {
  honoured: ['VolumeId', 'InstanceId', 'Device'],

  async run(input, call) {
    const volumeId = readVolumeId(input.VolumeId);
    const instanceId = readInstanceId(input.InstanceId);
    const device = checkDeviceName(input.Device);
    await call.permit({ type: 'volume', id: volumeId }, { type: 'instance', id: instanceId });
    const { catalog, dataPlane, lifecycle, now } = call.services;
    return lifecycle.locks.hold([volumeId, instanceId], async () => {
      const volume = await findVolume(call, volumeId);
      const instance = await findInstance(call, instanceId);
      if (volume.state === 'in-use' && volume.multi_attach === 0) throw errors.alreadyAttached(volumeId);
      if (volume.state !== 'available' && volume.state !== 'in-use') throw errors.volumeState(volumeId, volume.state);
      if (instance.state !== 'running' && instance.state !== 'stopped') {
        throw errors.instanceState(instanceId, instance.state, 'running or stopped');
      }
      if (volume.zone !== instance.zone) throw errors.zoneMismatch(volumeId, volume.zone, instance.zone);
      const attached = await attachedVolumes(catalog, instanceId);
      if (attached.some((other) => other.volume_id === volumeId)) throw errors.alreadyAttached(volumeId);
      if (attached.some((other) => other.device_name === device)) throw errors.deviceInUse(device);
      const attachment: AttachmentRow = {
        volume_id: volumeId,
        instance_id: instanceId,
        device_name: device,
        attached_at: now().toISOString(),
        delete_on_termination: 0,
      };
      // The catalog before the export: after a crash between the two, the next start exports what is attached.
      await catalog.transaction().execute(async (transaction) => {
        await transaction.insertInto('attachments').values(attachment).execute();
        await transaction.updateTable('volumes').set({ state: 'in-use' }).where('volume_id', '=', volumeId).execute();
      });
      try {
        if (instance.state === 'running') await dataPlane.exportVolume(volumeId);
      } catch (error) {
        await catalog.transaction().execute((transaction) => removeAttachment(transaction, attachment));
        throw error;
      }
      return attachmentView(attachment, 'attached');
    });
  },
};
