import type { CaptureProgress } from '../snapshots/capture.ts';
import type { AccountId, SnapshotId } from '../types/ids.ts';
import type { LifecycleOptions } from './options.ts';
import { type PendingUpload, pendingUploads } from './pending-snapshots.ts';
import type { SnapshotRunner } from './snapshot-runner.ts';

/** A CLI at work says so at least every thirty seconds. */
const SILENCE_MILLISECONDS = 10 * 60_000;

/**
 * Snapshots whose bytes the CLI stores, straight into the object store. They go on while the server is away; but one whose
 * CLI was killed would stay pending for ever, and keep collections away.
 */
export class Imports {
  readonly #options: LifecycleOptions;
  readonly #snapshots: SnapshotRunner;
  readonly #heardAt = new Map<SnapshotId, number>();
  /** What was said before, another server has heard. */
  readonly #listeningSince: number;

  constructor(options: LifecycleOptions, snapshots: SnapshotRunner) {
    this.#options = options;
    this.#snapshots = snapshots;
    this.#listeningSince = options.now().getTime();
  }

  /**
   * An import goes on.
   * @returns false when it is none of the account's that do: it was deleted, or has ended
   */
  async heard(snapshotId: SnapshotId, accountId: AccountId, progress: CaptureProgress): Promise<boolean> {
    const mine = (await this.#pending()).some((row) => row.snapshot_id === snapshotId && row.account_id === accountId);
    if (!mine) return false;
    this.#heardAt.set(snapshotId, this.#options.now().getTime());
    this.#snapshots.reportProgress(snapshotId, progress);
    return true;
  }

  /** Ends those of which nothing has been heard for too long. */
  async endLost(): Promise<void> {
    const pending = await this.#pending();
    const before = this.#options.now().getTime() - SILENCE_MILLISECONDS;
    for (const { snapshot_id, account_id, started_at } of pending) {
      const heardAt = this.#heardAt.get(snapshot_id) ?? Math.max(Date.parse(started_at), this.#listeningSince);
      if (heardAt >= before) continue;
      const reason = `Nothing was heard of the import for ${SILENCE_MILLISECONDS / 60_000} minutes.`;
      await this.#snapshots.failImport(snapshot_id, account_id, reason);
    }
    const goingOn = new Set(pending.map((row) => row.snapshot_id));
    for (const snapshotId of this.#heardAt.keys()) if (!goingOn.has(snapshotId)) this.#heardAt.delete(snapshotId);
  }

  async #pending(): Promise<PendingUpload[]> {
    return (await pendingUploads(this.#options.catalog)).filter(({ boundary }) => boundary === null);
  }
}
