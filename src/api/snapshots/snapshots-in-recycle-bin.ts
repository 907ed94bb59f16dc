import type {
  ListSnapshotsInRecycleBinRequest,
  ListSnapshotsInRecycleBinResult,
  RestoreSnapshotFromRecycleBinRequest,
  RestoreSnapshotFromRecycleBinResult,
  SnapshotRecycleBinInfo,
} from '@aws-sdk/client-ec2';
import type { Catalog } from '../../catalog/catalog.ts';
import { takeFromBin } from '../../catalog/recycle-bin.ts';
import type { SnapshotRow } from '../../catalog/schema.ts';
import type { SnapshotId } from '../../types/ids.ts';
import { errors } from '../errors.ts';
import { firstMissing, readSnapshotId } from '../identifiers.ts';
import type { Call, Operation } from '../operation.ts';
import { fillPage } from '../pages.ts';
import { describeOne } from './describe-snapshots.ts';
import { refreshRecords } from './stored-records.ts';

/** The caller's deleted snapshots that it can still have back. */
export const listSnapshotsInRecycleBin: Operation<ListSnapshotsInRecycleBinRequest, ListSnapshotsInRecycleBinResult> = {
  honoured: ['SnapshotIds', 'MaxResults', 'NextToken'],

  async run(input, call) {
    const ids = (input.SnapshotIds ?? []).map((id) => readSnapshotId(id));
    await call.permit();
    const { catalog } = call.services;
    if (ids.length > 0) {
      const found = await binned(catalog, call, ids).execute();
      const missing = firstMissing(ids, found, ({ snapshot_id }) => snapshot_id);
      if (missing !== undefined) throw errors.notInBin(missing);
    }
    const page = await fillPage(
      call,
      input,
      { least: 5, most: 1000 },
      {
        fetch: (after, most) =>
          binned(catalog, call, ids)
            .where('snapshot_id', '>', after as SnapshotId)
            .orderBy('snapshot_id')
            .limit(most)
            .execute(),
        idOf: ({ snapshot_id }) => snapshot_id,
      },
      async (rows) => rows,
      () => true,
    );
    return { Snapshots: page.items.map(binView), NextToken: page.nextToken };
  },
};

/** The snapshot is there again, as it was, with its tags, its lock, and those with whom it is shared. */
export const restoreSnapshotFromRecycleBin: Operation<
  RestoreSnapshotFromRecycleBinRequest,
  RestoreSnapshotFromRecycleBinResult
> = {
  honoured: ['SnapshotId'],

  async run(input, call) {
    const snapshotId = readSnapshotId(input.SnapshotId);
    await call.permit({ type: 'snapshot', id: snapshotId });
    const { catalog, lifecycle } = call.services;
    return lifecycle.locks.hold([snapshotId], async () => {
      await catalog.transaction().execute(async (transaction) => {
        const snapshot = await binned(transaction, call, [snapshotId]).executeTakeFirst();
        if (snapshot === undefined) throw errors.notInBin(snapshotId);
        await takeFromBin(transaction, snapshotId);
        await lifecycle.records.markStale(transaction, [snapshotId]);
      });
      await refreshRecords(call, [snapshotId]);
      const { OwnerId, Description, Encrypted, Progress, StartTime, State, VolumeId, VolumeSize } = await describeOne(
        call,
        snapshotId,
      );
      return {
        SnapshotId: snapshotId,
        OwnerId,
        Description,
        Encrypted,
        Progress,
        StartTime,
        State,
        VolumeId,
        VolumeSize,
      };
    });
  },
};

/** @param ids none: all that are there. What is to be deleted any moment is not there any more. */
function binned(catalog: Catalog, call: Call, ids: readonly SnapshotId[]) {
  const query = catalog
    .selectFrom('snapshots')
    .selectAll()
    .where('binned_at', 'is not', null)
    .where('binned_until', '>', call.services.now().toISOString())
    .where('account_id', '=', call.caller.accountId)
    .where('region', '=', call.region);
  return ids.length === 0 ? query : query.where('snapshot_id', 'in', [...ids]);
}

function binView(snapshot: SnapshotRow): SnapshotRecycleBinInfo {
  return {
    SnapshotId: snapshot.snapshot_id,
    RecycleBinEnterTime: new Date(snapshot.binned_at ?? ''),
    RecycleBinExitTime: new Date(snapshot.binned_until ?? ''),
    Description: snapshot.description,
    VolumeId: snapshot.volume_id,
  };
}
