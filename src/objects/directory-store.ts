import { randomBytes } from 'node:crypto';
import { type FileHandle, mkdir, open, readdir, rename, rm, stat } from 'node:fs/promises';
import path from 'node:path';
import { roomFor } from '../types/memory.ts';
import { DIRECT_BYTES, writeDirectly } from './direct-write.ts';
import { ObjectNotFoundError, type ObjectStore, ObjectTooShortError } from './object-store.ts';

/** Names that end so are puts that have not finished: or never will, when they have stood still for so long. */
const TEMPORARY = '.partial';
const IS_TEMPORARY = /\.[0-9a-f]{12}\.partial$/;
const UNFINISHED_MILLISECONDS = 60 * 60 * 1000;

/** @returns the file, open, and not synced */
async function writeFile(path: string, pieces: readonly Uint8Array[]): Promise<FileHandle> {
  const length = pieces.reduce((sum, piece) => sum + piece.byteLength, 0);
  if (length >= DIRECT_BYTES) {
    const file = await writeDirectly(path, pieces);
    if (file !== undefined) return file;
  }
  const file = await open(path, 'wx', 0o600);
  try {
    for (const piece of pieces) await file.writeFile(piece);
    return file;
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** Objects as files below one directory: `file://PATH`. */
export class DirectoryStore implements ObjectStore {
  readonly url: string;
  readonly #root: string;
  readonly #made = new Map<string, Promise<void>>();

  constructor(root: string) {
    this.#root = path.resolve(root);
    this.url = `file://${this.#root}`;
  }

  async put(key: string, pieces: readonly Uint8Array[]): Promise<void> {
    const target = this.#pathOf(key);
    const directory = path.dirname(target);
    await this.#makeDirectory(directory);
    const temporary = `${target}.${randomBytes(6).toString('hex')}${TEMPORARY}`;
    try {
      const file = await writeFile(temporary, pieces);
      try {
        // Before the rename: or a power loss could leave the object's name with half its bytes behind it.
        await file.sync();
      } finally {
        await file.close();
      }
      await rename(temporary, target);
    } catch (error) {
      // Someone may have taken the directory away: the next attempt makes it again.
      this.#made.delete(directory);
      await rm(temporary, { force: true });
      throw error;
    }
    // Before the answer: the name itself must survive, since a manifest may now name the object.
    await syncDirectory(directory);
  }

  async get(key: string): Promise<Buffer> {
    const file = await this.#open(key);
    try {
      return await file.readFile();
    } finally {
      await file.close();
    }
  }

  async getRange(key: string, offset: number, length: number): Promise<Buffer> {
    const file = await this.#open(key);
    try {
      const bytes = roomFor(length);
      let done = 0;
      while (done < length) {
        const { bytesRead } = await file.read(bytes, done, length - done, offset + done);
        if (bytesRead === 0) throw new ObjectTooShortError(this.url, key);
        done += bytesRead;
      }
      return bytes;
    } finally {
      await file.close();
    }
  }

  async *list(prefix: string): AsyncIterable<{ key: string; bytes: number }> {
    const directory = prefix.slice(0, prefix.lastIndexOf('/') + 1);
    for await (const key of this.#walk(directory)) {
      if (!key.startsWith(prefix) || IS_TEMPORARY.test(key)) continue;
      const found = await stat(this.#pathOf(key)).catch(() => undefined);
      if (found !== undefined) yield { key, bytes: found.size };
    }
  }

  async remove(key: string): Promise<void> {
    await rm(this.#pathOf(key), { force: true });
  }

  /** A process that is killed in the midst of a put leaves a file that no one would ever see. */
  async removeUnfinished(): Promise<void> {
    const before = Date.now() - UNFINISHED_MILLISECONDS;
    for await (const key of this.#walk('')) {
      if (!IS_TEMPORARY.test(key)) continue;
      const found = await stat(this.#pathOf(key)).catch(() => undefined);
      if (found !== undefined && found.mtimeMs < before) await this.remove(key);
    }
  }

  async #open(key: string): Promise<FileHandle> {
    try {
      return await open(this.#pathOf(key), 'r');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') throw new ObjectNotFoundError(this.url, key);
      throw error;
    }
  }

  async *#walk(directory: string): AsyncIterable<string> {
    const entries = await readdir(path.join(this.#root, directory), { withFileTypes: true }).catch(() => []);
    for (const entry of entries) {
      if (entry.isDirectory()) yield* this.#walk(`${directory}${entry.name}/`);
      else yield `${directory}${entry.name}`;
    }
  }

  #pathOf(key: string): string {
    const full = path.join(this.#root, key);
    if (!full.startsWith(`${this.#root}${path.sep}`)) throw new Error(`'${key}' is not a key below ${this.url}`);
    return full;
  }

  /** Each directory is made, and its name made durable, once. */
  #makeDirectory(directory: string): Promise<void> {
    let made = this.#made.get(directory);
    if (made === undefined) {
      made = (async () => {
        const first = await mkdir(directory, { recursive: true, mode: 0o700 });
        if (first === undefined) return;
        for (let at = directory; at.length >= first.length; at = path.dirname(at)) {
          await syncDirectory(path.dirname(at));
        }
      })();
      made.catch(() => this.#made.delete(directory));
      this.#made.set(directory, made);
    }
    return made;
  }
}

async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
