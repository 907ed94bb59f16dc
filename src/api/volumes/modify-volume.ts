import type { ModifyVolumeRequest, ModifyVolumeResult } from '@aws-sdk/client-ec2';
import { isPassing } from '../../lifecycle/passing-errors.ts';
import { errors } from '../errors.ts';
import { readVolumeId } from '../identifiers.ts';
import type { Operation } from '../operation.ts';
import { findVolume } from './find-volume.ts';
import { modificationView } from './modification-view.ts';
import { checkMultiAttach, checkVolumeShape } from './volume-types.ts';

/** Changes size, type or rates of a volume, in use or not. A volume only grows. */
export const modifyVolume: Operation<ModifyVolumeRequest, ModifyVolumeResult> = {
  honoured: ['VolumeId', 'Size', 'VolumeType', 'Iops', 'Throughput', 'MultiAttachEnabled'],

  async run(input, call) {
    const volumeId = readVolumeId(input.VolumeId);
    const { Size, VolumeType, Iops, Throughput, MultiAttachEnabled } = input;
    if ([Size, VolumeType, Iops, Throughput, MultiAttachEnabled].every((each) => each === undefined)) {
      throw errors.invalidValue('ModifyVolume', volumeId, 'Nothing is to be modified: give a size, a type, or a rate.');
    }
    await call.permit({ type: 'volume', id: volumeId });
    const { catalog, lifecycle, now } = call.services;
    return lifecycle.locks.hold([volumeId], async () => {
      const volume = await findVolume(call, volumeId);
      if (volume.state !== 'available' && volume.state !== 'in-use') throw errors.volumeState(volumeId, volume.state);
      if (Size !== undefined && Size < volume.size_gib) {
        throw errors.invalidValue(
          'Size',
          Size,
          `New size cannot be smaller than existing size (${volume.size_gib} GiB).`,
        );
      }
      const sameType = VolumeType === undefined || VolumeType === volume.volume_type;
      const target = checkVolumeShape({
        type: VolumeType ?? volume.volume_type,
        sizeGiB: Size ?? volume.size_gib,
        // Rates of the old type mean nothing for a new one.
        iops: Iops ?? (sameType ? (volume.iops ?? undefined) : undefined),
        throughput: Throughput ?? (sameType ? (volume.throughput ?? undefined) : undefined),
      });
      checkMultiAttach(MultiAttachEnabled ?? volume.multi_attach === 1, target.type);
      if (MultiAttachEnabled === false) {
        const attached = await catalog
          .selectFrom('attachments')
          .select('instance_id')
          .where('volume_id', '=', volumeId)
          .execute();
        if (attached.length > 1)
          throw errors.volumeInUse(volumeId, attached.map((each) => each.instance_id).join(', '));
      }
      const modification = {
        volume_id: volumeId,
        state: 'modifying' as const,
        message: '',
        started_at: now().toISOString(),
        ended_at: null,
        original_size_gib: volume.size_gib,
        original_type: volume.volume_type,
        original_iops: volume.iops,
        original_throughput: volume.throughput,
        target_size_gib: target.sizeGiB,
        target_type: target.type,
        target_iops: target.iops,
        target_throughput: target.throughput,
      };
      // The intention first: after a crash in between the modification is carried out at the next start.
      await catalog.transaction().execute(async (transaction) => {
        await transaction.deleteFrom('volume_modifications').where('volume_id', '=', volumeId).execute();
        await transaction.insertInto('volume_modifications').values(modification).execute();
        if (MultiAttachEnabled !== undefined) {
          await transaction
            .updateTable('volumes')
            .set({ multi_attach: MultiAttachEnabled ? 1 : 0 })
            .where('volume_id', '=', volumeId)
            .execute();
        }
      });
      try {
        await lifecycle.volumes.modify(volumeId);
      } catch (error) {
        // As AWS answers always: it is `modifying`. It is taken up again when the worker is back, or the keys are.
        if (!isPassing(error)) throw error;
      }
      const done = await catalog
        .selectFrom('volume_modifications')
        .selectAll()
        .where('volume_id', '=', volumeId)
        .executeTakeFirstOrThrow();
      return { VolumeModification: modificationView(done) };
    });
  },
};
