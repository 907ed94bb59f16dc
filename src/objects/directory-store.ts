import { randomBytes } from 'node:crypto';
import fs, { type Stats } from 'node:fs';
import { type FileHandle, mkdir, open, readdir, rm, stat } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import { roomFor } from '../types/memory.ts';
import { DIRECT_BYTES, writeDirectly } from './direct-write.ts';
import { ObjectNotFoundError, type ObjectStore, ObjectTooShortError } from './object-store.ts';
import { removeEach } from './remove-each.ts';

/** Names that end so are puts that have not finished: or never will, when they have stood still for so long. */
const TEMPORARY = '.partial';
const IS_TEMPORARY = /\.[0-9a-f]{12}\.partial$/;
const UNFINISHED_MILLISECONDS = 60 * 60 * 1000;

/** What a small object's way to the disk and back is made of, but for the syncs: those take long, and go to other threads. */
type SmallFileCalls = {
  open: (path: string, flags: 'r' | 'wx') => number | Promise<number>;
  write: (fd: number, bytes: Uint8Array) => void | Promise<void>;
  close: (fd: number) => void | Promise<void>;
  rename: (from: string, to: string) => void | Promise<void>;
  read: (path: string) => Buffer | Promise<Buffer>;
};
const openLater = promisify(fs.open);
const LATER: SmallFileCalls = {
  open: (path, flags) => openLater(path, flags, 0o600),
  write: promisify(fs.writeFile),
  close: promisify(fs.close),
  rename: promisify(fs.rename),
  read: promisify(fs.readFile),
};
const NOW: SmallFileCalls = {
  open: (path, flags) => fs.openSync(path, flags, 0o600),
  write: fs.writeFileSync,
  close: fs.closeSync,
  rename: fs.renameSync,
  read: (path) => fs.readFileSync(path),
};
const syncLater = promisify(fs.fsync);

/** Objects as files below one directory: `file://PATH`. */
export class DirectoryStore implements ObjectStore {
  readonly url: string;
  readonly #root: string;
  readonly #calls: SmallFileCalls;
  readonly #made = new Map<string, Promise<void>>();

  /**
   * @param waits whether the thread waits for the file system itself where that takes microseconds, as a rule: to have it
   *   done by one of libuv's costs more. For a thread that serves nobody; on a busy disk it may take milliseconds
   */
  constructor(root: string, waits = false) {
    this.#root = path.resolve(root);
    this.url = `file://${this.#root}`;
    this.#calls = waits ? NOW : LATER;
  }

  async put(key: string, pieces: readonly Uint8Array[]): Promise<void> {
    try {
      await this.#put(key, pieces);
    } catch (error) {
      // Another process has removed the folder that this one had made: it is made again.
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
      await this.#put(key, pieces);
    }
  }

  async #put(key: string, pieces: readonly Uint8Array[]): Promise<void> {
    const target = this.#pathOf(key);
    const directory = path.dirname(target);
    await this.#makeDirectory(directory);
    const temporary = `${target}.${unusedName()}${TEMPORARY}`;
    try {
      // Before the rename: or a power loss could leave the object's name with half its bytes behind it.
      await this.#writeAndSync(temporary, pieces);
      await this.#calls.rename(temporary, target);
    } catch (error) {
      // Someone may have taken the directory away: the next attempt makes it anew.
      this.#made.delete(directory);
      await rm(temporary, { force: true });
      throw error;
    }
    // Before the answer: the name itself must survive, since a manifest may now name the object.
    await this.#syncDirectory(directory);
  }

  async get(key: string): Promise<Buffer> {
    try {
      return await this.#calls.read(this.#pathOf(key));
    } catch (error) {
      throw this.#asNotFound(error, key);
    }
  }

  async getRange(key: string, offset: number, length: number): Promise<Buffer> {
    const file = await open(this.#pathOf(key), 'r').catch((error: Error) => {
      throw this.#asNotFound(error, key);
    });
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
      const found = await this.#stat(key);
      if (found !== undefined) yield { key, bytes: found.size };
    }
  }

  remove(keys: readonly string[]): Promise<void> {
    return removeEach(keys, (key) => rm(this.#pathOf(key), { force: true }));
  }

  async removeFolder(folder: string): Promise<void> {
    const directory = this.#pathOf(folder);
    await rm(directory, { recursive: true, force: true });
    // Before the answer: nobody asks again for what a power loss would bring back.
    await this.#syncDirectory(path.dirname(directory)).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'ENOENT') throw error;
    });
    for (const made of this.#made.keys()) if (`${made}/`.startsWith(`${directory}/`)) this.#made.delete(made);
  }

  /** A process that is killed in the midst of a put leaves a file that no one would ever see. */
  async removeUnfinished(): Promise<void> {
    const before = Date.now() - UNFINISHED_MILLISECONDS;
    for await (const key of this.#walk('')) {
      if (!IS_TEMPORARY.test(key)) continue;
      const found = await this.#stat(key);
      if (found !== undefined && found.mtimeMs < before) await this.remove([key]);
    }
  }

  /** @returns undefined where it has been removed since it was listed */
  async #stat(key: string): Promise<Stats | undefined> {
    return stat(this.#pathOf(key)).catch((error) => {
      if (error.code !== 'ENOENT') throw error;
      return undefined;
    });
  }

  /** @returns what is to be thrown where a file could not be read */
  #asNotFound(error: unknown, key: string): unknown {
    return (error as NodeJS.ErrnoException).code === 'ENOENT' ? new ObjectNotFoundError(this.url, key) : error;
  }

  async #writeAndSync(path: string, pieces: readonly Uint8Array[]): Promise<void> {
    const length = pieces.reduce((sum, piece) => sum + piece.byteLength, 0);
    const large = length >= DIRECT_BYTES ? await writeDirectly(path, pieces) : undefined;
    if (large !== undefined) {
      await syncAndClose(large);
      return;
    }
    const { open, write, close } = this.#calls;
    const fd = await open(path, 'wx');
    try {
      for (const piece of pieces) await write(fd, piece);
      await syncLater(fd);
    } finally {
      await close(fd);
    }
  }

  async #syncDirectory(directory: string): Promise<void> {
    const { open, close } = this.#calls;
    const fd = await open(directory, 'r');
    try {
      await syncLater(fd);
    } finally {
      await close(fd);
    }
  }

  async *#walk(directory: string): AsyncIterable<string> {
    const entries = await readdir(path.join(this.#root, directory), { withFileTypes: true }).catch((error) => {
      // What cannot be looked into is not empty: a list that leaves some out would have a rebuild leave them out.
      if (error.code !== 'ENOENT') throw error;
      return [];
    });
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
          await this.#syncDirectory(path.dirname(at));
        }
      })();
      made.catch(() => this.#made.delete(directory));
      this.#made.set(directory, made);
    }
    return made;
  }
}

async function syncAndClose(file: FileHandle): Promise<void> {
  try {
    await file.sync();
  } finally {
    await file.close();
  }
}

let lastName = randomBytes(6).readUIntBE(0, 6);

/** Twelve hexadecimal digits that no other put is likely to have; where one has, the file is not made. */
function unusedName(): string {
  lastName = (lastName + 1) % 2 ** 48;
  return lastName.toString(16).padStart(12, '0');
}
