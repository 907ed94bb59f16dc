import { renameSync, writeFileSync } from 'node:fs';
import type { Disk, DiskFile, OpenMode } from '../../src/volumes/disk.ts';
import { NodeDisk } from '../../src/volumes/node-disk.ts';

export class KilledError extends Error {
  override name = 'KilledError';
}

/**
 * The real disk under a process that can be killed at any of its changes: the change at which it is killed does not
 * happen, nothing after it does, and what went before stands (the page cache outlives a process).
 */
export class CrashDisk implements Disk {
  readonly #disk = new NodeDisk();
  readonly #open = new Set<DiskFile>();
  #changesLeft = Number.POSITIVE_INFINITY;
  #killed = false;
  /** When it returns an error, the change fails with it and the process lives on. */
  failChange: () => Error | undefined = () => undefined;
  /** When it returns an error, the sync fails with it. */
  failSync: () => Error | undefined = () => undefined;
  /** Whether what is about to be read is not in memory. */
  isCold: () => boolean = () => false;
  /** Files that were synced, in that order. */
  readonly synced: string[] = [];
  /** What the device has refused of a file; told once to each who has it open. */
  readonly refused = new Map<string, Error>();

  killAfter(changes: number): void {
    this.#changesLeft = changes;
  }

  get killed(): boolean {
    return this.#killed;
  }

  /** Ends the process: its files are closed, its locks are gone. */
  kill(): void {
    this.#killed = true;
    for (const file of this.#open) file.close();
    this.#open.clear();
  }

  open(path: string, mode: OpenMode): DiskFile {
    if (mode === 'create') this.#change();
    const file = this.#disk.open(path, mode);
    this.#open.add(file);
    const change = (): void => this.#change();
    const alive = (): void => this.#alive();
    let told = false;
    return {
      read: (...given) => {
        alive();
        file.read(...given);
      },
      readNow: (...given) => {
        alive();
        return !this.isCold() && file.readNow(...given);
      },
      bringNear: async (...given) => {
        alive();
        await file.bringNear(...given);
      },
      write: (...given) => {
        change();
        file.write(...given);
      },
      writeAll: (...given) => {
        change();
        file.writeAll(...given);
      },
      sync: async () => {
        alive();
        const failure = this.failSync();
        if (failure !== undefined) throw failure;
        this.synced.push(path);
        await file.sync();
      },
      writeBackError: () => {
        alive();
        const error = told ? undefined : this.refused.get(path);
        told ||= error !== undefined;
        return error ?? file.writeBackError();
      },
      forgetPages: () => file.forgetPages(),
      resize: (bytes) => {
        change();
        file.resize(bytes);
      },
      size: () => file.size(),
      punchHole: (...given) => {
        change();
        file.punchHole(...given);
      },
      zeroAllocated: (...given) => {
        change();
        file.zeroAllocated(...given);
      },
      nextData: (position) => file.nextData(position),
      nextHole: (position) => file.nextHole(position),
      tryLock: () => file.tryLock(),
      close: () => {
        if (this.#open.delete(file)) file.close();
      },
      letGo: () => {
        if (this.#open.delete(file)) file.letGo();
      },
    };
  }

  async createLater(path: string, start: Uint8Array, zeroBytes: number): Promise<DiskFile> {
    const file = this.open(path, 'create');
    try {
      if (start.byteLength > 0) file.write(start, 0, start.byteLength, 0);
      if (zeroBytes > 0) file.zeroAllocated(start.byteLength, zeroBytes);
    } catch (error) {
      if (error instanceof KilledError) throw error;
      file.close();
      this.#disk.remove(path);
      throw error;
    }
    return file;
  }

  exists(path: string): boolean {
    return this.#disk.exists(path);
  }

  list(directory: string): string[] {
    return this.#disk.list(directory);
  }

  makeDirectory(path: string): void {
    this.#change();
    this.#disk.makeDirectory(path);
  }

  remove(path: string): void {
    this.#change();
    this.#disk.remove(path);
  }

  removeTree(path: string): void {
    this.#change();
    this.#disk.removeTree(path);
  }

  async removeLater(path: string): Promise<void> {
    this.remove(path);
  }

  async removeLargeTree(path: string): Promise<void> {
    this.removeTree(path);
  }

  readText(path: string): string {
    return this.#disk.readText(path);
  }

  async replaceText(path: string, text: string): Promise<void> {
    this.#change();
    // At once: what a process that was killed meanwhile had begun must not come about later. (A kill alone needs no sync.)
    writeFileSync(`${path}.new`, text);
    renameSync(`${path}.new`, path);
    await new Promise(setImmediate);
    this.#alive();
  }

  async syncDirectory(path: string): Promise<void> {
    this.#alive();
    await this.#disk.syncDirectory(path);
  }

  #alive(): void {
    if (this.#killed) throw new KilledError('the process was killed');
  }

  #change(): void {
    this.#alive();
    const failure = this.failChange();
    if (failure !== undefined) throw failure;
    if (this.#changesLeft <= 0) {
      this.kill();
      throw new KilledError('the process was killed');
    }
    this.#changesLeft -= 1;
  }
}
