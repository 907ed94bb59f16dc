/**
 * Uploads and collections keep out of each other's way: any number of uploads at once, or one collection. An upload has
 * objects in the store that nothing names yet; a collection takes just such objects away.
 */
export class UploadGate {
  #uploads = 0;
  #collection: Promise<void> | undefined;

  /** Runs an upload; waits for a collection that is under way. */
  async upload<Answer>(work: () => Promise<Answer>): Promise<Answer> {
    while (this.#collection !== undefined) await this.#collection;
    this.#uploads += 1;
    try {
      return await work();
    } finally {
      this.#uploads -= 1;
    }
  }

  /** Whether a collection would have to wait. */
  get busy(): boolean {
    return this.#uploads > 0 || this.#collection !== undefined;
  }

  /** Runs a collection if nothing is being uploaded. @returns undefined when something is: try again later */
  async collect<Answer>(work: () => Promise<Answer>): Promise<Answer | undefined> {
    if (this.busy) return undefined;
    const ended = Promise.withResolvers<void>();
    this.#collection = ended.promise;
    try {
      return await work();
    } finally {
      this.#collection = undefined;
      ended.resolve();
    }
  }
}
