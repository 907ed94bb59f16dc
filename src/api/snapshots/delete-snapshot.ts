import type { DeleteSnapshotRequest } from '@aws-sdk/client-ec2';
import { deleteSnapshotRow } from '../../catalog/delete-snapshot.ts';
import { putIntoBin } from '../../catalog/recycle-bin.ts';
import type { SnapshotId } from '../../types/ids.ts';
import { readSnapshotId } from '../identifiers.ts';
import type { Call, Operation } from '../operation.ts';
import { keptUntil } from '../recycle-bin/retention.ts';
import { assertInNoImage, findOwnSnapshot, stillThere } from './find-snapshot.ts';
import { assertUnlocked } from './lock-snapshot.ts';
import { refreshRecords, removeRecord } from './stored-records.ts';

/** The snapshot goes: for good, or into the recycle bin, where one of the owner's rules keeps it. */
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
    const isKept = await catalog.transaction().execute(async (transaction) => {
      await assertInNoImage(transaction, snapshotId);
      const there = await stillThere(transaction, snapshotId);
      const deletedAt = now();
      await assertUnlocked(transaction, there, deletedAt);
      const until = await keptUntil(transaction, there, deletedAt);
      if (until === undefined) {
        await deleteSnapshotRow(transaction, there);
        return false;
      }
      await putIntoBin(transaction, there, deletedAt, until);
      await lifecycle.records.markStale(transaction, [snapshotId]);
      return true;
    });
    if (isKept) return refreshRecords(call, [snapshotId]);
    // After the catalog: the other way round, a snapshot that is still there could not be brought back from the bucket.
    await removeRecord(call, snapshot);
    lifecycle.archives.forget(snapshotId);
    if (snapshot.state === 'pending') await lifecycle.snapshots.abandon(snapshot);
  });
}
