import { setTimeout } from 'node:timers/promises';
import { sql } from 'kysely';
import type { Catalog } from '../catalog/catalog.ts';
import type { SnapshotRow } from '../catalog/schema.ts';
import { Together } from '../catalog/together.ts';
import type { CaptureOrder } from '../dataplane/messages.ts';
import type { Captured } from '../snapshots/capture.ts';
import type { SetId, VolumeId } from '../types/ids.ts';
import { asEpoch, type EpochNumber } from '../types/units.ts';

const MOMENT_MILLISECONDS = 20;

/** A snapshot whose bytes are still to be stored, and what those of its volume are compared with. */
export type OwedSnapshot = { snapshot: SnapshotRow; boundary: EpochNumber; base: CaptureOrder['base'] };

/**
 * `endsSet`: nothing of its set is missing any more; of several that end it in one commit, the last one says so. `isBase`: it
 * is its volume's base now.
 */
export type Stored = { endsSet: boolean; isBase: boolean };

/** What the catalog says of cuts that are being stored. The volumes of a set ask, and tell, at almost the same time. */
export class PendingSnapshots {
  readonly #catalog: Catalog;
  readonly #oldest = new Together((volumeIds: readonly VolumeId[]) => this.#oldestOf(volumeIds));
  readonly #stored = new Together(
    (all: readonly { owed: OwedSnapshot; captured: Captured }[]) => this.#recordStored(all),
    () => this.#othersStored(),
  );
  /** How many captures are under way; and what is to be resolved when none is. */
  #underWay = 0;
  #idle: PromiseWithResolvers<void> | undefined;

  constructor(catalog: Catalog) {
    this.#catalog = catalog;
  }

  /** The volume's oldest cut that is not stored yet. */
  next(volumeId: VolumeId): Promise<OwedSnapshot | undefined> {
    return this.#oldest.ask(volumeId);
  }

  /** Brings a snapshot's bytes into the store, and records that they are there; durable when it resolves. */
  async store(owed: OwedSnapshot, capture: () => Promise<Captured>): Promise<Stored> {
    this.#underWay += 1;
    let captured: Captured;
    try {
      captured = await capture();
    } finally {
      this.#underWay -= 1;
      if (this.#underWay === 0) this.#idle?.resolve();
    }
    return this.#stored.ask({ owed, captured });
  }

  async #oldestOf(volumeIds: readonly VolumeId[]): Promise<(OwedSnapshot | undefined)[]> {
    const rows = await this.#catalog
      .selectFrom('snapshots')
      .innerJoin('volumes', 'volumes.volume_id', 'snapshots.volume_id')
      .selectAll('snapshots')
      .select(['base_boundary', 'base_root'])
      .where('snapshots.volume_id', 'in', volumeIds)
      // As the index of the pending ones has it; the others have no boundary.
      .where('snapshots.state', '=', sql.lit('pending'))
      .where('boundary', 'is not', null)
      .orderBy('boundary')
      .execute();
    const oldest = new Map<VolumeId, OwedSnapshot>();
    for (const { base_boundary, base_root, ...snapshot } of rows) {
      const { volume_id, boundary } = snapshot;
      if (boundary === null || oldest.has(volume_id)) continue;
      const base = { boundary: asEpoch(base_boundary), root: base_root ?? undefined };
      oldest.set(volume_id, { snapshot, boundary, base });
    }
    return volumeIds.map((volumeId) => oldest.get(volumeId));
  }

  /** Each commit is a sync, on the disk that guests use: what is stored within a moment shares one. The last waits for none. */
  async #othersStored(): Promise<void> {
    this.#idle ??= Promise.withResolvers<void>();
    if (this.#underWay === 0) this.#idle.resolve();
    const moment = new AbortController();
    await Promise.race([this.#idle.promise, setTimeout(MOMENT_MILLISECONDS, undefined, { signal: moment.signal })]);
    moment.abort();
    this.#idle = undefined;
  }

  /** In one commit. */
  #recordStored(all: readonly { owed: OwedSnapshot; captured: Captured }[]): Promise<Stored[]> {
    return this.#catalog.transaction().execute(async (transaction) => {
      const stored: Stored[] = [];
      const latest = new Map<SetId, Stored>();
      for (const { owed, captured } of all) {
        const { snapshot, boundary } = owed;
        const { root, dataBlocks, storedBytes } = captured;
        const updated = await transaction
          .updateTable('snapshots')
          .set({ root, data_blocks: dataBlocks, stored_bytes: storedBytes, boundary: null })
          .where('snapshot_id', '=', snapshot.snapshot_id)
          // No more, where it has failed with its set meanwhile.
          .where('boundary', '=', boundary)
          .executeTakeFirst();
        // The base moves on even when the snapshot is no longer wanted: its bytes are stored, and nothing is owed twice.
        const moved = await transaction
          .updateTable('volumes')
          .set({ base_boundary: boundary, base_root: root })
          .where('volume_id', '=', snapshot.volume_id)
          // Not where it was given up meanwhile (see Bases): what this one is stored on top of may be lost.
          .where('base_boundary', '=', owed.base.boundary)
          .executeTakeFirst();
        const one = { endsSet: false, isBase: moved.numUpdatedRows > 0n };
        stored.push(one);
        if (updated.numUpdatedRows > 0n) latest.set(snapshot.set_id, one);
      }
      for (const [setId, one] of latest) {
        const owing = transaction.selectFrom('snapshots').select('snapshot_id').where('set_id', '=', setId);
        one.endsSet = (await owing.where('root', 'is', null).limit(1).executeTakeFirst()) === undefined;
      }
      return stored;
    });
  }
}

export type PendingUpload = Pick<SnapshotRow, 'snapshot_id' | 'account_id' | 'started_at' | 'boundary'>;

/** Snapshots of which something may be in the store that the catalog does not name: of cuts, and, without a boundary, imports. */
export function pendingUploads(catalog: Catalog): Promise<PendingUpload[]> {
  return (
    catalog
      .selectFrom('snapshots')
      .select(['snapshot_id', 'account_id', 'started_at', 'boundary'])
      .where('state', '=', 'pending')
      .where('root', 'is', null)
      // Of those that the EBS direct APIs write, the catalog names each block.
      .where('snapshot_id', 'not in', (select) =>
        select.selectFrom('direct_uploads').select('direct_uploads.snapshot_id'),
      )
      // A copy that is cut short begins again.
      .where('snapshot_id', 'not in', (select) =>
        select.selectFrom('snapshot_copies').select('snapshot_copies.snapshot_id'),
      )
      .execute()
  );
}
