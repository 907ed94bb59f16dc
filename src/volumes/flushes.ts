/**
 * Which syncs a volume's flushes need: none where nothing was written since the last one began, one for all who wait for
 * the same, and never one that began before the write that it is asked for.
 */
export class Flushes {
  readonly #sync: () => Promise<void>;
  #unsynced: boolean;
  #syncing: Promise<void> | undefined;
  #queued: Promise<void> | undefined;

  /**
   * @param sync makes durable what was written before it is called
   * @param unsynced whether something is in the files already that may not be durable
   */
  constructor(sync: () => Promise<void>, unsynced: boolean) {
    this.#sync = sync;
    this.#unsynced = unsynced;
  }

  /** Something is, or is about to be, written. */
  wrote(): void {
    this.#unsynced = true;
  }

  /** Resolves when all that was written before the call is durable. */
  flush(): Promise<void> {
    if (!this.#unsynced) return this.#syncing ?? Promise.resolve();
    if (this.#syncing === undefined) return this.#begin();
    // A sync is under way that began before the latest write: wait for it, then one more serves all who wait.
    this.#queued ??= this.#syncing
      .catch(() => undefined)
      .then(() => {
        this.#queued = undefined;
        return this.flush();
      });
    return this.#queued;
  }

  /** Resolves when no sync is under way that began before the call. */
  async underWay(): Promise<void> {
    await this.#syncing?.catch(() => undefined);
  }

  #begin(): Promise<void> {
    this.#unsynced = false;
    const syncing = this.#sync().finally(() => {
      if (this.#syncing === syncing) this.#syncing = undefined;
    });
    this.#syncing = syncing;
    return syncing;
  }
}
