import { type SqlBool, sql } from 'kysely';
import { z } from 'zod';
import { progressOf, tierOf } from '../api/snapshots/snapshot-view.ts';
import { BLOCK_BYTES } from '../types/units.ts';
import { verb } from './verb.ts';

/** So many at once: the request takes some ten milliseconds. */
const MOST_SETS = 500;

const Place = z.strictObject({ startedAt: z.string(), setId: z.string() });
const Input = z.strictObject({
  /** Only sets that are earlier. */
  before: Place.optional(),
});

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
    /** `recoverable`: in the recycle bin. */
    state: string;
    tier: string;
    progress: string;
    /** Bytes of the blocks that hold data, and what this snapshot added to the object store. */
    dataBytes: number;
    storedBytes: number;
    message: string;
  }[];
};

/** `earlier`: there are more, before this place. */
export type SetsReport = { sets: SetReport[]; earlier?: z.output<typeof Place> };

/** The caller's snapshots, by the sets in which they were cut: the latest ones, oldest first. */
export const sets = verb(Input, async ({ before }, call): Promise<SetsReport> => {
  await call.permit();
  const { catalog, lifecycle } = call.services;
  let query = catalog
    .selectFrom('snapshot_sets')
    .selectAll()
    .where('account_id', '=', call.caller.accountId)
    .where('region', '=', call.region)
    .orderBy('started_at', 'desc')
    .orderBy('set_id', 'desc')
    .limit(MOST_SETS + 1);
  if (before !== undefined) {
    query = query.where(sql<SqlBool>`(started_at, set_id) < (${before.startedAt}, ${before.setId})`);
  }
  const rows = await query.execute();
  const isMore = rows.length > MOST_SETS;
  const page = rows.slice(0, MOST_SETS).reverse();
  const ids = page.map((set) => set.set_id);
  const snapshots = await catalog
    .selectFrom('snapshots')
    .selectAll()
    .where('set_id', 'in', ids)
    .orderBy('device_name')
    .execute();
  const bySet = Map.groupBy(snapshots, (snapshot) => snapshot.set_id);
  return {
    ...(isMore ? { earlier: { startedAt: page[0].started_at, setId: page[0].set_id } } : {}),
    sets: page.flatMap((set) => {
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
            state: snapshot.binned_at === null ? snapshot.state : 'recoverable',
            tier: tierOf(snapshot),
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
