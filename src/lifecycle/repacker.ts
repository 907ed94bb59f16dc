import { retireRoot } from '../catalog/retired-roots.ts';
import type { Repacked } from '../snapshots/repack.ts';
import type { Sha256 } from '../types/units.ts';
import { allSnapshots } from './all-snapshots.ts';
import type { ArchiveRunner } from './archive-runner.ts';
import type { Collected } from './collector.ts';
import type { LifecycleOptions } from './options.ts';
import type { SnapshotRecords } from './snapshot-records.ts';
import type { UploadGate } from './upload-gate.ts';
import type { WrittenBlocks } from './written-blocks.ts';

/** What one run moves at most. */
const MOST_BYTES = 8 * 1024 ** 3;

/** How much a repacking would move, or has moved, and what it makes free (a day later). */
export type RepackFigures = { packs: number; deadBytes: number; movedBytes: number };

/** What `cleancut gc` tells. */
export type CollectReport = Collected & {
  /** Packs that are mostly dead: what is needed of them was stored anew, or would be; none where it was busy. */
  repacked?: RepackFigures;
};

/**
 * Empties packs that are mostly dead: what is needed of them is stored again, and snapshots get manifests that name the
 * new places. The old manifests stay for a day (retired_roots): whoever reads by them now can finish.
 */
export class Repacker {
  readonly #options: LifecycleOptions;
  readonly #uploads: UploadGate;
  readonly #records: SnapshotRecords;
  readonly #blocks: WrittenBlocks;
  readonly #archives: ArchiveRunner;

  constructor(
    options: LifecycleOptions,
    uploads: UploadGate,
    records: SnapshotRecords,
    blocks: WrittenBlocks,
    archives: ArchiveRunner,
  ) {
    this.#options = options;
    this.#uploads = uploads;
    this.#records = records;
    this.#blocks = blocks;
    this.#archives = archives;
  }

  /**
   * @param move false only looks
   * @throws when the store or a worker fails: then nothing has changed
   */
  async run(move: boolean): Promise<RepackFigures> {
    // What it stores has no name until the catalog has it: no collection may run meanwhile.
    return this.#uploads.upload('snapshot', async () => {
      const { renamed, ...figures } = await this.#repack(move);
      if (renamed.length > 0) await this.#rename(renamed);
      return figures;
    });
  }

  async #repack(move: boolean): Promise<Repacked> {
    const { catalog, dataPlane, keys } = this.#options;
    const groups = new Map<string | null, Set<Sha256>>();
    const pinned = new Set<Sha256>();
    const group = (root: Sha256, key: string | null): void => {
      groups.set(key, (groups.get(key) ?? new Set()).add(root));
    };
    for await (const { root, data_key_id, state } of allSnapshots(catalog, () => dataPlane.afterHold())) {
      if (root === null) continue;
      if (state === 'completed') group(root, data_key_id);
      else pinned.add(root);
    }
    const bases = await catalog
      .selectFrom('volumes')
      .select(['base_root', 'data_key_id'])
      .where('base_root', 'is not', null)
      .execute();
    for (const { base_root, data_key_id } of bases) if (base_root !== null) group(base_root, data_key_id);
    // In use by their names: of volumes that are being restored, copies and snapshots that are being made, readers.
    const inUse = await catalog
      .selectFrom('volumes')
      .select('origin_root as root')
      .where('hydrated', '=', 0)
      .unionAll((q) => q.selectFrom('snapshot_copies').select('source_root as root'))
      .unionAll((q) => q.selectFrom('retired_roots').select('root'))
      .execute();
    const parents = await this.#blocks.parents();
    const packs = await this.#blocks.packs();
    for (const { root } of inUse) if (root !== null) pinned.add(root);
    for (const root of this.#archives.rootsBeingRead()) pinned.add(root);
    for (const { parent_root } of parents) if (parent_root !== null) pinned.add(parent_root);
    const opened = [];
    for (const [keyId, roots] of groups) {
      try {
        opened.push({ key: (await keys.open(keyId))?.bytes, roots: [...roots] });
      } catch {
        // Under a key that cannot be had now nothing can be moved.
        for (const root of roots) pinned.add(root);
      }
    }
    return dataPlane.repack({
      groups: opened,
      pinned: { roots: [...pinned], packs: [...packs] },
      move,
      mostBytes: MOST_BYTES,
    });
  }

  /** The new manifests are stored: from here on they are the snapshots'. */
  async #rename(renamed: Repacked['renamed']): Promise<void> {
    const retiredAt = this.#options.now();
    await this.#options.catalog.transaction().execute(async (transaction) => {
      for (const { from, to } of renamed) {
        await retireRoot(transaction, from, retiredAt);
        const completed = await transaction
          .selectFrom('snapshots')
          .select('snapshot_id')
          .where('root', '=', from)
          .where('state', '=', 'completed')
          .execute();
        // With the new root, so that no crash leaves a record in the bucket that names what will be collected.
        const ids = completed.map(({ snapshot_id }) => snapshot_id);
        await this.#records.markStale(transaction, ids);
        await transaction
          .updateTable('snapshots')
          .set({ root: to })
          .where('root', '=', from)
          .where('state', '=', 'completed')
          .execute();
        await transaction.updateTable('volumes').set({ base_root: to }).where('base_root', '=', from).execute();
      }
    });
    await this.#records.refreshStale();
  }
}
