import type { DetachVolumeRequest, VolumeAttachment } from '@aws-sdk/client-ec2';
import { errors } from '../errors.ts';
import { readInstanceId, readVolumeId } from '../identifiers.ts';
import { findInstance } from '../instances/find-instance.ts';
import type { Operation } from '../operation.ts';
import { removeAttachment } from './attached-volumes.ts';
import { findVolume } from './find-volume.ts';
import { attachmentView } from './volume-view.ts';

export const detachVolume: Operation<DetachVolumeRequest, VolumeAttachment> = {
  honoured: ['VolumeId', 'InstanceId', 'Device'],
  // A detachment here is always orderly and quick; there is nothing left to force.
  withoutEffect: ['Force'],

  async run(input, call) {
    const volumeId = readVolumeId(input.VolumeId);
    const askedInstance = input.InstanceId === undefined ? undefined : readInstanceId(input.InstanceId);
    const instance =
      input.InstanceId === undefined ? [] : [{ type: 'instance' as const, id: readInstanceId(input.InstanceId) }];
    await call.permit({ type: 'volume', id: volumeId }, ...instance);
    const { catalog, lifecycle } = call.services;
    const found = await catalog
      .selectFrom('attachments')
      .select('instance_id')
      .where('volume_id', '=', volumeId)
      .execute();
    const locks = [volumeId, ...found.map((attachment) => attachment.instance_id)];
    return lifecycle.locks.hold(locks, async () => {
      const volume = await findVolume(call, volumeId);
      const attachments = await catalog
        .selectFrom('attachments')
        .selectAll()
        .where('volume_id', '=', volumeId)
        .execute();
      if (attachments.length === 0) throw errors.volumeState(volumeId, volume.state);
      if (attachments.length > 1 && askedInstance === undefined) {
        throw errors.combination(`Volume '${volumeId}' is attached to several instances: name one with InstanceId.`);
      }
      const attachment = attachments.find((each) => askedInstance === undefined || each.instance_id === askedInstance);
      if (attachment === undefined) throw errors.noAttachment(volumeId, askedInstance ?? '', undefined);
      const { instance_id, device_name } = attachment;
      if (input.Device !== undefined && input.Device !== device_name) {
        throw errors.noAttachment(volumeId, instance_id, input.Device);
      }
      // It was attached there since its instances were looked for: nobody holds that one's lock.
      if (!locks.includes(instance_id)) throw errors.volumeState(volumeId, volume.state);
      const instance = await findInstance(call, instance_id);
      if (instance.root_device_name === device_name && instance.state !== 'stopped')
        throw errors.rootOfRunning(volumeId);
      // The export before the catalog: once the volume counts as free, no client of the old attachment can reach it.
      await lifecycle.instances.endExport(volumeId, instance_id);
      await catalog.transaction().execute((transaction) => removeAttachment(transaction, attachment));
      return attachmentView(attachment, 'detached');
    });
  },
};
