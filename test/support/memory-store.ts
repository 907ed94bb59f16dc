import { ObjectNotFoundError, type ObjectStore, ObjectTooShortError } from '../../src/objects/object-store.ts';
import { removeEach, removeListed } from '../../src/objects/remove-each.ts';

/** An object store in memory that a test can look into, and make fail. */
export class MemoryStore implements ObjectStore {
  readonly url = 'memory://';
  readonly objects = new Map<string, Buffer>();
  /** Called before each request; what it throws is the request's failure. */
  beforeRequest: (request: 'put' | 'get' | 'remove', key: string, bytes?: Buffer) => void | Promise<void> = () =>
    undefined;

  async put(key: string, pieces: readonly Uint8Array[]): Promise<void> {
    const bytes = Buffer.concat(pieces);
    await this.beforeRequest('put', key, bytes);
    this.objects.set(key, bytes);
  }

  async get(key: string): Promise<Buffer> {
    await this.beforeRequest('get', key);
    const found = this.objects.get(key);
    if (found === undefined) throw new ObjectNotFoundError(this.url, key);
    return Buffer.from(found);
  }

  async getRange(key: string, offset: number, length: number): Promise<Buffer> {
    await this.beforeRequest('get', key);
    const whole = this.objects.get(key);
    if (whole === undefined) throw new ObjectNotFoundError(this.url, key);
    if (offset + length > whole.length) throw new ObjectTooShortError(this.url, key);
    return Buffer.from(whole.subarray(offset, offset + length));
  }

  async *list(prefix: string): AsyncIterable<{ key: string; bytes: number }> {
    for (const [key, bytes] of this.objects) if (key.startsWith(prefix)) yield { key, bytes: bytes.length };
  }

  removeFolder(folder: string): Promise<void> {
    return removeListed(this, folder);
  }

  async removeUnfinished(): Promise<void> {}

  remove(keys: readonly string[]): Promise<void> {
    return removeEach(keys, async (key) => {
      await this.beforeRequest('remove', key);
      this.objects.delete(key);
    });
  }
}
