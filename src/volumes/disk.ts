/**
 * The seam between the volume engine and the file system. The engine touches files through this port alone, so that a
 * test can hold the disk in its hands: fail a write, fill the disk, or drop what was not yet synced.
 *
 * Writes and reads are synchronous: they are page-cache copies of some microseconds, and a synchronous write is also
 * what makes the cut simple (no write is ever half done when the gate closes). Syncs wait for a device, and for whatever
 * else is on its way there, so they are not; and what is to be read can be brought into memory beforehand.
 */
export interface DiskFile {
  /** Fills `target[targetStart, targetStart+length)` from `position` (bytes); past the end of the file it reads zeroes. */
  read(target: Uint8Array, targetStart: number, length: number, position: number): void;
  /**
   * Reads as `read` does, where all that is asked for is in memory.
   * @returns false where it is not, or not known to be: then anything may be in the target
   */
  readNow(target: Uint8Array, targetStart: number, length: number, position: number): boolean;
  /** Brings a range into memory, not on the thread that calls. Where that fails, the read that follows says why. */
  bringNear(position: number, length: number): Promise<void>;
  /** Writes all of the bytes, or throws (ENOSPC, EIO …); after a throw any part of them may have been written. */
  write(source: Uint8Array, sourceStart: number, length: number, position: number): void;
  /** Like write, for bytes that lie in several buffers, one after the other. */
  writeAll(sources: readonly Uint8Array[], position: number): void;
  /** Resolves when all that was written before the call survives a power loss. */
  sync(): Promise<void>;
  /**
   * Whether the device has refused bytes that were written to the file, since it was opened, last synced or last asked
   * this: told once, as by a sync, and without waiting for anything. Such bytes are lost when the kernel lets go of their
   * page, and until then reads find them. Where the system cannot say, undefined.
   */
  writeBackError(): Error | undefined;
  /** What is in memory of the file and need not be written is read from the device again. */
  forgetPages(): void;
  resize(bytes: number): void;
  size(): number;
  /** Makes the range read as zeroes and gives its space back. */
  punchHole(position: number, length: number): void;
  /** Makes the range read as zeroes and keeps (or takes) its space, so that a later write there cannot find the disk full. */
  zeroAllocated(position: number, length: number): void;
  /** First byte at or after `position` that may hold data; undefined when only holes follow. */
  nextData(position: number): number | undefined;
  /** First byte at or after `position` that is in a hole; the file's end counts as one. */
  nextHole(position: number): number;
  /** Takes the file's exclusive lock, which the kernel gives back when the process ends, however it ends. */
  tryLock(): boolean;
  close(): void;
  /**
   * Closes the file without waiting for it. To be used once its name is removed: the last close then gives the file's room
   * back, which took 32 ms for 512 MiB, and no guest shall wait for that.
   */
  letGo(): void;
}

export type OpenMode = 'create' | 'read-write' | 'read-only';

export interface Disk {
  /** 'create' makes the file (and fails if it is there); the others fail with ENOENT if it is not. */
  open(path: string, mode: OpenMode): DiskFile;
  /**
   * Makes a file with these first bytes, and room for so many zeroes after them; not on the thread that calls: ext4
   * searches long for a place where files were removed a moment ago, and its journal may keep it waiting.
   * @throws ENOSPC, EEXIST …; then nothing is left of it
   */
  createLater(path: string, start: Uint8Array, zeroBytes: number): Promise<DiskFile>;
  exists(path: string): boolean;
  /** The names in a directory, sorted; empty when there is no such directory. */
  list(directory: string): string[];
  makeDirectory(path: string): void;
  remove(path: string): void;
  /** The same, not on the thread that calls: the file system's journal may keep a removal waiting for many milliseconds. */
  removeLater(path: string): Promise<void>;
  removeTree(path: string): void;
  /** The same, for large files; not on the thread that calls. */
  removeLargeTree(path: string): Promise<void>;
  readText(path: string): string;
  /**
   * Puts the whole text in place at once and durably: temporary file, sync, rename, sync of the directory; the syncs not on
   * the thread that calls. Of one file one at a time: two would share the temporary file.
   */
  replaceText(path: string, text: string): Promise<void>;
  /** Makes the names in the directory (created, renamed, removed) survive a power loss; not on the thread that calls. */
  syncDirectory(path: string): Promise<void>;
}
