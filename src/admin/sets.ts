import { progressOf } from '../api/snapshots/snapshot-view.ts';
import { BLOCK_BYTES } from '../types/units.ts';
import { NOTHING, verb } from './verb.ts';

export type SetReport = {
  setId: string;
  instanceId: string | null;
  startedAt: string;
  /** How long writes were held for the cut. */
  holdMilliseconds: number;
  state: string;
  description: string;
  snapshots: {
    snapshotId: string;
    volumeId: string;
    device: string | null;
    sizeGiB: number;
    state: string;
    progress: string;
    /** Bytes of the blocks that hold data, and what this snapshot added to the object store. */
    dataBytes: number;
    storedBytes: number;
    message: string;
  }[];
};

/** The caller's snapshots, by the sets in which they were cut; oldest first. */
export const sets = verb(NOTHING, async (_, call): Promise<{ sets: SetReport[] }> => {
  await call.permit();
  const { catalog, lifecycle } = call.services;
  const rows = await catalog
    .selectFrom('snapshot_sets')
    .selectAll()
    .where('account_id', '=', call.caller.accountId)
    .where('region', '=', call.region)
    .orderBy('started_at')
    .execute();
  const snapshots = await catalog
    .selectFrom('snapshots')
    .selectAll()
    .where('account_id', '=', call.caller.accountId)
    .where('region', '=', call.region)
    .orderBy('device_name')
    .execute();
  const bySet = Map.groupBy(snapshots, (snapshot) => snapshot.set_id);
  return {
    sets: rows.flatMap((set) => {
      const members = bySet.get(set.set_id);
      // Nothing is left of a set whose snapshots were all deleted.
      if (members === undefined) return [];
      return [
        {
          setId: set.set_id,
          instanceId: set.instance_id,
          startedAt: set.started_at,
          holdMilliseconds: set.hold_milliseconds,
          state: set.state,
          description: set.description,
          snapshots: members.map((snapshot) => ({
            snapshotId: snapshot.snapshot_id,
            volumeId: snapshot.volume_id,
            device: snapshot.device_name,
            sizeGiB: snapshot.size_gib,
            state: snapshot.state,
            progress: progressOf(snapshot, lifecycle.snapshots),
            dataBytes: snapshot.data_blocks * BLOCK_BYTES,
            storedBytes: snapshot.stored_bytes,
            message: snapshot.state_message,
          })),
        },
      ];
    }),
  };
});
