import type { DeleteSnapshotRequest } from '@aws-sdk/client-ec2';
import { removeTags } from '../../catalog/tags.ts';
import type { SnapshotId } from '../../types/ids.ts';
import { errors } from '../errors.ts';
import { readSnapshotId } from '../identifiers.ts';
import type { Call, Operation } from '../operation.ts';
import { findOwnSnapshot, stillThere } from './find-snapshot.ts';
import { assertUnlocked } from './lock-snapshot.ts';
import { removeRecord } from './stored-records.ts';

export const deleteSnapshot: Operation<DeleteSnapshotRequest, object> = {
  honoured: ['SnapshotId'],

  async run(input, call) {
    const snapshotId = readSnapshotId(input.SnapshotId);
    await call.permit({ type: 'snapshot', id: snapshotId });
    await removeSnapshot(call, snapshotId);
    return {};
  },
};

/** @throws ApiError InvalidSnapshot.NotFound, InvalidSnapshot.InUse, SnapshotLocked */
export function removeSnapshot(call: Call, snapshotId: SnapshotId): Promise<void> {
  const { catalog, lifecycle, now } = call.services;
  return lifecycle.locks.hold([snapshotId], async () => {
    const snapshot = await findOwnSnapshot(call, snapshotId);
    await catalog.transaction().execute(async (transaction) => {
      const image = await transaction
        .selectFrom('image_devices')
        .select('image_id')
        .where('snapshot_id', '=', snapshotId)
        .executeTakeFirst();
      if (image !== undefined) throw errors.snapshotInUse(snapshotId, image.image_id);
      await assertUnlocked(transaction, await stillThere(transaction, snapshotId), now());
      await removeTags(transaction, snapshotId);
      await transaction.deleteFrom('snapshots').where('snapshot_id', '=', snapshotId).execute();
      // Killed after the commit, the next start knows which record is still to be removed.
      await transaction
        .insertInto('deleted_records')
        .values({ snapshot_id: snapshotId, set_id: snapshot.set_id })
        .execute();
    });
    // After the catalog: the other way round, a snapshot that is still there could not be brought back from the bucket.
    await removeRecord(call, snapshot);
    if (snapshot.state === 'pending') await lifecycle.snapshots.abandon(snapshot);
  });
}
