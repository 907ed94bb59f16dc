import type { CreateSnapshotRequest, Snapshot } from '@aws-sdk/client-ec2';
import { making } from '../authorization.ts';
import { errors } from '../errors.ts';
import { readVolumeId } from '../identifiers.ts';
import type { Operation } from '../operation.ts';
import { readTagSpecifications } from '../tags/tag-rules.ts';
import { findVolume } from '../volumes/find-volume.ts';
import { cutSet, makingSnapshot } from './cut-set.ts';
import { describeOne } from './describe-snapshots.ts';
import { checkDescription, refusePlacement } from './snapshot-rules.ts';

/** A snapshot of one volume, attached or not. */
export const createSnapshot: Operation<CreateSnapshotRequest, Snapshot> = {
  honoured: ['VolumeId', 'Description', 'TagSpecifications', 'OutpostArn', 'Location'],

  async run(input, call) {
    const volumeId = readVolumeId(input.VolumeId);
    const description = checkDescription(input.Description);
    refusePlacement(input.OutpostArn, input.Location);
    const tags = readTagSpecifications(input.TagSpecifications, ['snapshot']).get('snapshot') ?? new Map();
    await call.permit({ type: 'volume', id: volumeId }, async () => {
      const volume = await call.services.catalog
        .selectFrom('volumes')
        .selectAll()
        .where('volume_id', '=', volumeId)
        .where('account_id', '=', call.caller.accountId)
        .executeTakeFirst();
      return volume === undefined ? making(call, 'snapshot', tags) : makingSnapshot(call, volume, tags);
    });
    return call.services.lifecycle.locks.hold([volumeId], async () => {
      const volume = await findVolume(call, volumeId);
      if (volume.state !== 'available' && volume.state !== 'in-use') throw errors.volumeState(volumeId, volume.state);
      const volumes = [{ volume, device: undefined, tags }];
      const { snapshotIds } = await cutSet(call, { instanceId: null, description, volumes });
      return describeOne(call, snapshotIds[0]);
    });
  },
};
