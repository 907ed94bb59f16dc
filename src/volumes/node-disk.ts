import fs from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import type { Disk, DiskFile, OpenMode } from './disk.ts';
import {
  forgetPages,
  lockFile,
  punchHole,
  readCached,
  seekData,
  seekHole,
  writeBackError,
  zeroRange,
  zeroRangeLater,
} from './system-calls.ts';

const openLater = promisify(fs.open);
const syncLater = promisify(fs.fsync);
const unlinkLater = promisify(fs.unlink);
const writeLater = (fd: number, bytes: Uint8Array, start: number, length: number, position: number): Promise<number> =>
  new Promise((resolve, reject) => {
    fs.write(fd, bytes, start, length, position, (error, written) => (error ? reject(error) : resolve(written)));
  });

const ZEROES = new Uint8Array(1 << 20);
/**
 * The page cache keeps what comes in one write in pages as large, as far as it can, and ext4 then takes longer for each
 * small write into them: a file written by pieces of this many bytes takes half as many more random 4 KiB writes a second
 * as one that was written by 1 MiB.
 */
const PIECE_BYTES = 64 * 1024;

/** What is read to be brought near goes here, all at once: nobody looks at it. */
const nowhere = Buffer.allocUnsafeSlow(128 * 1024);

class NodeFile implements DiskFile {
  readonly #fd: number;
  /** Reads that other threads are at. */
  #reading = 0;
  #closeAfterReads = false;
  /** The file system cannot say what is in memory. */
  #isBlind = false;

  constructor(fd: number) {
    this.#fd = fd;
  }

  read(target: Uint8Array, targetStart: number, length: number, position: number): void {
    let done = fs.readSync(this.#fd, target, targetStart, length, position);
    while (done < length) {
      const more = fs.readSync(this.#fd, target, targetStart + done, length - done, position + done);
      if (more === 0) {
        target.fill(0, targetStart + done, targetStart + length);
        return;
      }
      done += more;
    }
  }

  readNow(target: Uint8Array, targetStart: number, length: number, position: number): boolean {
    const read = this.#isBlind ? undefined : readCached(this.#fd, target, targetStart, length, position);
    if (read !== undefined) return read === length;
    this.#isBlind = true;
    this.read(target, targetStart, length, position);
    return true;
  }

  bringNear(position: number, length: number): Promise<void> {
    return new Promise((resolve) => {
      this.#reading += 1;
      let done = 0;
      const next = (): void => {
        if (done < length && !this.#closeAfterReads) {
          const bytes = Math.min(nowhere.length, length - done);
          fs.read(this.#fd, nowhere, 0, bytes, position + done, next);
          done += bytes;
          return;
        }
        this.#reading -= 1;
        if (this.#reading === 0 && this.#closeAfterReads) fs.closeSync(this.#fd);
        resolve();
      };
      next();
    });
  }

  write(source: Uint8Array, sourceStart: number, length: number, position: number): void {
    for (let done = 0; done < length; ) {
      const piece = Math.min(PIECE_BYTES, length - done);
      done += fs.writeSync(this.#fd, source, sourceStart + done, piece, position + done);
    }
  }

  writeAll(sources: readonly Uint8Array[], position: number): void {
    if (sources.length === 1) return this.write(sources[0], 0, sources[0].byteLength, position);
    let length = 0;
    for (const source of sources) length += source.byteLength;
    const done = fs.writevSync(this.#fd, sources, position);
    if (done === length) return;
    // A short write (a signal, a disk that has just filled): go on piece by piece from where it stopped.
    let skip = done;
    let at = position + done;
    for (const source of sources) {
      if (skip >= source.byteLength) {
        skip -= source.byteLength;
        continue;
      }
      this.write(source, skip, source.byteLength - skip, at);
      at += source.byteLength - skip;
      skip = 0;
    }
  }

  sync(): Promise<void> {
    return new Promise((resolve, reject) => {
      fs.fdatasync(this.#fd, (error) => (error ? reject(error) : resolve()));
    });
  }

  writeBackError(): Error | undefined {
    return writeBackError(this.#fd);
  }

  forgetPages(): void {
    forgetPages(this.#fd);
  }

  resize(bytes: number): void {
    fs.ftruncateSync(this.#fd, bytes);
  }

  size(): number {
    return fs.fstatSync(this.#fd).size;
  }

  punchHole(position: number, length: number): void {
    punchHole(this.#fd, position, length);
  }

  zeroAllocated(position: number, length: number): void {
    if (zeroRange(this.#fd, position, length)) return;
    for (let done = 0; done < length; done += ZEROES.byteLength) {
      this.write(ZEROES, 0, Math.min(ZEROES.byteLength, length - done), position + done);
    }
  }

  nextData(position: number): number | undefined {
    return seekData(this.#fd, position);
  }

  nextHole(position: number): number {
    return seekHole(this.#fd, position);
  }

  tryLock(): boolean {
    return lockFile(this.#fd);
  }

  close(): void {
    // Its number must not become another file's under a read that another thread is at.
    if (this.#reading > 0) this.#closeAfterReads = true;
    else fs.closeSync(this.#fd);
  }

  letGo(): void {
    fs.close(this.#fd, () => undefined);
  }
}

const FLAGS: Record<OpenMode, string> = { create: 'wx+', 'read-write': 'r+', 'read-only': 'r' };

/** The real file system. */
export class NodeDisk implements Disk {
  open(file: string, mode: OpenMode): DiskFile {
    return new NodeFile(fs.openSync(file, FLAGS[mode], 0o600));
  }

  async createLater(file: string, start: Uint8Array, zeroBytes: number): Promise<DiskFile> {
    const fd = await openLater(file, FLAGS.create, 0o600);
    const made = new NodeFile(fd);
    try {
      if (start.byteLength > 0) {
        const written = await writeLater(fd, start, 0, start.byteLength, 0);
        made.write(start, written, start.byteLength - written, written);
      }
      if (zeroBytes > 0 && !(await zeroRangeLater(fd, start.byteLength, zeroBytes))) {
        made.zeroAllocated(start.byteLength, zeroBytes);
      }
    } catch (error) {
      made.letGo();
      await this.removeLater(file);
      throw error;
    }
    return made;
  }

  exists(file: string): boolean {
    return fs.existsSync(file);
  }

  list(directory: string): string[] {
    return fs.existsSync(directory) ? fs.readdirSync(directory).sort() : [];
  }

  makeDirectory(directory: string): void {
    fs.mkdirSync(directory, { recursive: true, mode: 0o700 });
  }

  remove(file: string): void {
    fs.rmSync(file, { force: true });
  }

  async removeLater(file: string): Promise<void> {
    try {
      // (To look first what it is, as `rm` does, is done by the thread that asks.)
      await unlinkLater(file);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    }
  }

  removeTree(directory: string): void {
    fs.rmSync(directory, { recursive: true, force: true });
  }

  async removeLargeTree(directory: string): Promise<void> {
    await fs.promises.rm(directory, { recursive: true, force: true });
  }

  readText(file: string): string {
    return fs.readFileSync(file, 'utf8');
  }

  async replaceText(file: string, text: string): Promise<void> {
    const temporary = `${file}.new`;
    const fd = fs.openSync(temporary, 'w', 0o600);
    try {
      // All of it, or an error: one write may end short where the disk has room for less.
      fs.writeFileSync(fd, text);
      // Before the rename: or a power loss could leave the new name with an empty file behind it.
      await syncLater(fd);
    } finally {
      fs.closeSync(fd);
    }
    await fs.promises.rename(temporary, file);
    await this.syncDirectory(path.dirname(file));
  }

  async syncDirectory(directory: string): Promise<void> {
    const fd = fs.openSync(directory, 'r');
    try {
      await syncLater(fd);
    } finally {
      fs.closeSync(fd);
    }
  }
}
