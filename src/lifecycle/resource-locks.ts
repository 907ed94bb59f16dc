/**
 * One at a time for each resource: an operation names all that it will look at and change, and waits until no other
 * operation has any of it. All are taken in one step, so no two can wait for each other.
 */
export class ResourceLocks {
  readonly #tails = new Map<string, Promise<void>>();

  async hold<Answer>(resourceIds: readonly string[], work: () => Promise<Answer>): Promise<Answer> {
    const ids = [...new Set(resourceIds)];
    const before = ids.map((id) => this.#tails.get(id));
    const mine = Promise.withResolvers<void>();
    for (const id of ids) this.#tails.set(id, mine.promise);
    await Promise.all(before);
    try {
      return await work();
    } finally {
      mine.resolve();
      for (const id of ids) if (this.#tails.get(id) === mine.promise) this.#tails.delete(id);
    }
  }
}
