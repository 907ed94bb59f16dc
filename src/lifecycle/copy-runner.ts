import { isCatalogError } from '../catalog/catalog.ts';
import type { SnapshotId } from '../types/ids.ts';
import { GIB } from '../types/units.ts';
import type { LifecycleOptions } from './options.ts';
import { isPassing } from './passing-errors.ts';
import type { SnapshotRunner } from './snapshot-runner.ts';
import type { UploadGate } from './upload-gate.ts';

const RETRY_MILLISECONDS = 300;

/** Makes copies of snapshots under another key: every block is read, decrypted, encrypted, and stored again. */
export class CopyRunner {
  readonly #options: LifecycleOptions;
  readonly #uploads: UploadGate;
  readonly #snapshots: SnapshotRunner;

  constructor(options: LifecycleOptions, uploads: UploadGate, snapshots: SnapshotRunner) {
    this.#options = options;
    this.#uploads = uploads;
    this.#snapshots = snapshots;
  }

  /** There is a copy to be made. */
  kick(snapshotId: SnapshotId): void {
    void this.#run(snapshotId).catch((error: Error) => {
      if (!this.#options.dataPlane.stopping) this.#options.log('error', `${snapshotId}: ${error.message}`);
    });
  }

  /** After a start: copies that were cut short begin again. */
  async recover(): Promise<void> {
    const copies = await this.#options.catalog.selectFrom('snapshot_copies').select('snapshot_id').execute();
    for (const { snapshot_id } of copies) this.kick(snapshot_id);
  }

  async #run(snapshotId: SnapshotId): Promise<void> {
    const { catalog, dataPlane, keys } = this.#options;
    while (!dataPlane.stopping) {
      const copy = await catalog
        .selectFrom('snapshot_copies')
        .innerJoin('snapshots', 'snapshots.snapshot_id', 'snapshot_copies.snapshot_id')
        .select(['source_root', 'source_key_id', 'data_key_id', 'size_gib', 'account_id'])
        .where('snapshot_copies.snapshot_id', '=', snapshotId)
        .where('snapshots.state', '=', 'pending')
        .executeTakeFirst();
      // Deleted meanwhile.
      if (copy === undefined) return;
      try {
        await this.#uploads.upload('snapshot', async () => {
          const captured = await dataPlane.recode({
            snapshotId,
            sizeBytes: copy.size_gib * GIB,
            source: { root: copy.source_root, key: (await keys.open(copy.source_key_id))?.bytes },
            key: (await keys.open(copy.data_key_id))?.bytes,
            move: 'none',
          });
          const { root, dataBlocks, storedBytes } = captured;
          await catalog.transaction().execute(async (transaction) => {
            await transaction
              .updateTable('snapshots')
              .set({ root, data_blocks: dataBlocks, stored_bytes: storedBytes })
              .where('snapshot_id', '=', snapshotId)
              .execute();
            await transaction.deleteFrom('snapshot_copies').where('snapshot_id', '=', snapshotId).execute();
          });
        });
        await this.#snapshots.completeStored(snapshotId);
        return;
      } catch (error) {
        if (dataPlane.stopping) return;
        if (!isPassing(error) && !isCatalogError(error)) {
          await this.#snapshots.failImport(snapshotId, copy.account_id, (error as Error).message);
          await catalog.deleteFrom('snapshot_copies').where('snapshot_id', '=', snapshotId).execute();
          return;
        }
        await new Promise((resolve) => setTimeout(resolve, RETRY_MILLISECONDS));
      }
    }
  }
}
