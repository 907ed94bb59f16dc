import { ObjectNotFoundError, type ObjectStore } from './object-store.ts';

export type StoreOperation = 'put' | 'get' | 'list' | 'remove';

/** How often the store was asked, how often in vain, and the bytes that went through; since the process began. */
export type StoreFigures = Record<StoreOperation, { requests: number; errors: number; bytes: number }>;

export function noStoreFigures(): StoreFigures {
  const none = () => ({ requests: 0, errors: 0, bytes: 0 });
  return { put: none(), get: none(), list: none(), remove: none() };
}

/** Adds figures of another process or thread. */
export function addStoreFigures(sum: StoreFigures, more: StoreFigures): void {
  for (const operation of Object.keys(sum) as StoreOperation[]) {
    sum[operation].requests += more[operation].requests;
    sum[operation].errors += more[operation].errors;
    sum[operation].bytes += more[operation].bytes;
  }
}

/** A store that counts what it is asked for. */
export class MeasuredStore implements ObjectStore {
  readonly url: string;
  readonly figures = noStoreFigures();
  readonly #store: ObjectStore;

  constructor(store: ObjectStore) {
    this.#store = store;
    this.url = store.url;
  }

  async put(key: string, pieces: readonly Uint8Array[]): Promise<void> {
    await this.#count('put', () => this.#store.put(key, pieces));
    for (const piece of pieces) this.figures.put.bytes += piece.byteLength;
  }

  async get(key: string): Promise<Buffer> {
    const bytes = await this.#count('get', () => this.#store.get(key));
    this.figures.get.bytes += bytes.length;
    return bytes;
  }

  async getRange(key: string, offset: number, length: number): Promise<Buffer> {
    const bytes = await this.#count('get', () => this.#store.getRange(key, offset, length));
    this.figures.get.bytes += bytes.length;
    return bytes;
  }

  async *list(prefix: string): AsyncGenerator<{ key: string; bytes: number }> {
    this.figures.list.requests += 1;
    try {
      yield* this.#store.list(prefix);
    } catch (error) {
      this.figures.list.errors += 1;
      throw error;
    }
  }

  /** Counted is what is removed: how many requests a store makes of it is its own affair. */
  async remove(keys: readonly string[]): Promise<void> {
    await this.#count('remove', () => this.#store.remove(keys), keys.length);
  }

  async removeFolder(folder: string): Promise<void> {
    await this.#count('remove', () => this.#store.removeFolder(folder));
  }

  removeUnfinished(): Promise<void> {
    return this.#store.removeUnfinished();
  }

  async #count<Answer>(operation: StoreOperation, ask: () => Promise<Answer>, requests = 1): Promise<Answer> {
    this.figures[operation].requests += requests;
    try {
      return await ask();
    } catch (error) {
      // That there is no such object is an answer.
      if (!(error instanceof ObjectNotFoundError)) this.figures[operation].errors += 1;
      throw error;
    }
  }
}
