/** Where writes wait while a cut is made. */
export class Gate {
  #closed: PromiseWithResolvers<void> | undefined;

  /** Resolves when the gate opens; undefined while it is open. */
  get opened(): Promise<void> | undefined {
    return this.#closed?.promise;
  }

  /** @throws when it is closed already: two cuts would hold the same volume */
  close(): void {
    if (this.#closed !== undefined) throw new Error('the volume is held already');
    this.#closed = Promise.withResolvers<void>();
  }

  open(): void {
    const closed = this.#closed;
    this.#closed = undefined;
    closed?.resolve();
  }
}
