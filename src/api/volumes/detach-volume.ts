import type { DetachVolumeRequest, VolumeAttachment } from '@aws-sdk/client-ec2';
import { errors } from '../errors.ts';
import { readInstanceId, readVolumeId } from '../identifiers.ts';
import { findInstance } from '../instances/find-instance.ts';
import type { Operation } from '../operation.ts';
import { findVolume } from './find-volume.ts';
import { attachmentView } from './volume-view.ts';

export const detachVolume: Operation<DetachVolumeRequest, VolumeAttachment> = {
  honoured: ['VolumeId', 'InstanceId', 'Device'],
  // A detachment here is always orderly and quick; there is nothing left to force.
  withoutEffect: ['Force'],

  async run(input, call) {
    const volumeId = readVolumeId(input.VolumeId);
    const askedInstance = input.InstanceId === undefined ? undefined : readInstanceId(input.InstanceId);
    call.permit();
    const { catalog, dataPlane, lifecycle } = call.services;
    const found = await catalog
      .selectFrom('attachments')
      .select('instance_id')
      .where('volume_id', '=', volumeId)
      .executeTakeFirst();
    return lifecycle.locks.hold([volumeId, ...(found === undefined ? [] : [found.instance_id])], async () => {
      const volume = await findVolume(call, volumeId);
      const attachment = await catalog
        .selectFrom('attachments')
        .selectAll()
        .where('volume_id', '=', volumeId)
        .executeTakeFirst();
      if (attachment === undefined) throw errors.volumeState(volumeId, volume.state);
      const { instance_id, device_name } = attachment;
      if (askedInstance !== undefined && askedInstance !== instance_id) {
        throw errors.noAttachment(volumeId, askedInstance, undefined);
      }
      if (input.Device !== undefined && input.Device !== device_name) {
        throw errors.noAttachment(volumeId, instance_id, input.Device);
      }
      const instance = await findInstance(call, instance_id);
      if (instance.root_device_name === device_name && instance.state !== 'stopped')
        throw errors.rootOfRunning(volumeId);
      // The export before the catalog: once the volume counts as free, no client of the old attachment can reach it.
      await dataPlane.endExport(volumeId);
      await catalog.transaction().execute(async (transaction) => {
        await transaction.deleteFrom('attachments').where('volume_id', '=', volumeId).execute();
        await transaction
          .updateTable('volumes')
          .set({ state: 'available' })
          .where('volume_id', '=', volumeId)
          .execute();
      });
      return attachmentView(attachment, 'detached');
    });
  },
};
