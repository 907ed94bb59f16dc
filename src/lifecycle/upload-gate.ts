import { setTimeout as sleep } from 'node:timers/promises';

/** Of a whole snapshot, which takes minutes; or of what one request brings, for which a client waits. */
export type UploadKind = 'snapshot' | 'request';

/** Requests are over within this. */
const REQUESTS_MILLISECONDS = 60_000;

/**
 * Uploads and collections keep out of each other's way: any number of uploads at once, or one collection. An upload has
 * objects in the store that nothing names yet; a collection takes just such objects away.
 */
export class UploadGate {
  readonly #underWay: Record<UploadKind, number> = { snapshot: 0, request: 0 };
  /** Ends when uploads of that kind may begin again. */
  readonly #closed: Record<UploadKind, Promise<void> | undefined> = { snapshot: undefined, request: undefined };
  /** Ends with the next upload that does. */
  #nextEnd = Promise.withResolvers<void>();

  /** Runs an upload; waits for a collection that is under way, or has waited long enough itself. */
  async upload<Answer>(kind: UploadKind, work: () => Promise<Answer>): Promise<Answer> {
    for (let closed = this.#closed[kind]; closed !== undefined; closed = this.#closed[kind]) await closed;
    this.#underWay[kind] += 1;
    try {
      return await work();
    } finally {
      this.#underWay[kind] -= 1;
      this.#nextEnd.resolve();
      this.#nextEnd = Promise.withResolvers();
    }
  }

  /** Whether a collection would have to wait. */
  get busy(): boolean {
    const { snapshot, request } = this.#underWay;
    return snapshot + request > 0 || this.#closed.snapshot !== undefined;
  }

  /** Runs a collection if nothing is being uploaded. @returns undefined when something is: try again later */
  async collect<Answer>(work: () => Promise<Answer>): Promise<Answer | undefined> {
    return this.busy ? undefined : this.#keepingOut(['snapshot', 'request'], work);
  }

  /**
   * Runs a collection when all that is being uploaded has ended. Until then no snapshot's upload begins; those of
   * requests do until the last moment.
   * @returns undefined when that took longer than `patienceMilliseconds`
   */
  async collectAfterUploads<Answer>(
    patienceMilliseconds: number,
    work: () => Promise<Answer>,
  ): Promise<Answer | undefined> {
    if (this.#closed.snapshot !== undefined) return undefined;
    return this.#keepingOut(['snapshot'], async () => {
      if (!(await this.#haveEnded('snapshot', patienceMilliseconds))) return undefined;
      return this.#keepingOut(['request'], async () =>
        (await this.#haveEnded('request', REQUESTS_MILLISECONDS)) ? work() : undefined,
      );
    });
  }

  async #keepingOut<Answer>(kinds: readonly UploadKind[], work: () => Promise<Answer>): Promise<Answer> {
    const { promise, resolve } = Promise.withResolvers<void>();
    for (const kind of kinds) this.#closed[kind] = promise;
    try {
      return await work();
    } finally {
      for (const kind of kinds) this.#closed[kind] = undefined;
      resolve();
    }
  }

  /** @returns false when they have not within that time */
  async #haveEnded(kind: UploadKind, patienceMilliseconds: number): Promise<boolean> {
    const patience = new AbortController();
    let isLate = false;
    const late = sleep(patienceMilliseconds, undefined, { ref: false, signal: patience.signal }).then(
      () => {
        isLate = true;
      },
      () => undefined,
    );
    while (this.#underWay[kind] > 0 && !isLate) await Promise.race([this.#nextEnd.promise, late]);
    patience.abort();
    return this.#underWay[kind] === 0;
  }
}
