import type { DeleteVolumeRequest } from '@aws-sdk/client-ec2';
import { errors } from '../errors.ts';
import { readVolumeId } from '../identifiers.ts';
import type { Operation } from '../operation.ts';
import { findVolume } from './find-volume.ts';

export const deleteVolume: Operation<DeleteVolumeRequest, object> = {
  honoured: ['VolumeId'],

  async run(input, call) {
    const volumeId = readVolumeId(input.VolumeId);
    await call.permit({ type: 'volume', id: volumeId });
    const { catalog, lifecycle } = call.services;
    await lifecycle.locks.hold([volumeId], async () => {
      const volume = await findVolume(call, volumeId);
      const attachment = await catalog
        .selectFrom('attachments')
        .select('instance_id')
        .where('volume_id', '=', volumeId)
        .executeTakeFirst();
      if (attachment !== undefined) throw errors.volumeInUse(volumeId, attachment.instance_id);
      if (volume.state !== 'available' && volume.state !== 'error') throw errors.volumeState(volumeId, volume.state);
      // First the intention: a crash from here on ends in a deleted volume, never in half a one.
      await catalog.updateTable('volumes').set({ state: 'deleting' }).where('volume_id', '=', volumeId).execute();
      await lifecycle.volumes.reap([volumeId]);
    });
    return {};
  },
};
