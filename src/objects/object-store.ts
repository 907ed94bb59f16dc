/**
 * Where snapshots' data lives. Both implementations pass the same tests; neither knows what the objects mean.
 *
 * Objects are small enough to hold in memory (a pack is some 16 MiB) and are never changed in part: a put replaces the
 * whole object or nothing.
 */
export interface ObjectStore {
  /** The store's URL as the operator gave it. */
  readonly url: string;

  /** Stores the pieces one after the other as one object. When it resolves, the object survives a power loss. */
  put(key: string, pieces: readonly Uint8Array[]): Promise<void>;

  /** @throws ObjectNotFoundError */
  get(key: string): Promise<Buffer>;

  /**
   * Reads [offset, offset+length) bytes. They are the caller's own, to change or to give back.
   * @throws ObjectNotFoundError; ObjectTooShortError when the object ends before that
   */
  getRange(key: string, offset: number, length: number): Promise<Buffer>;

  /** Every key that begins with `prefix`, in no promised order. */
  list(prefix: string): AsyncIterable<{ key: string; bytes: number }>;

  /**
   * Removes all of them, in no promised order. One that is not there is no error: a deletion may be done again.
   * @throws when not all could be removed; then nothing of it is under way any more
   */
  remove(keys: readonly string[]): Promise<void>;

  /**
   * Removes all that is in a folder (`a/b`: every key that begins `a/b/`), and the folder. One that is not there is no error.
   * @throws when not all could be removed
   */
  removeFolder(folder: string): Promise<void>;

  /** Removes what puts that were cut short long ago have left behind, where such a thing leaves anything. */
  removeUnfinished(): Promise<void>;
}

/** The part of a store that reading snapshots needs. */
export type ObjectReader = Pick<ObjectStore, 'url' | 'get' | 'getRange'>;

/** A failure that asking again will not change. */
export class FinalError extends Error {
  override name = 'FinalError';
}

export class ObjectNotFoundError extends FinalError {
  override name = 'ObjectNotFoundError';
  constructor(url: string, key: string) {
    super(`the object store ${url} has no object '${key}'`);
  }
}

/** The object ends before what was asked for: it was cut short, or the answer was. */
export class ObjectTooShortError extends Error {
  override name = 'ObjectTooShortError';
  constructor(url: string, key: string) {
    super(`the object '${key}' in ${url} ends before what was asked for of it`);
  }
}

/** The store said no: no such bucket, no permission. */
export class ObjectStoreRefusedError extends FinalError {
  override name = 'ObjectStoreRefusedError';
}
