import type { Disk, DiskFile, OpenMode } from '../../src/volumes/disk.ts';
import { KilledError } from '../support/crash-disk.ts';
import type { Scheduler } from './scheduler.ts';

const SECTOR = 512;
const PAGE = 4096;
/** Of a bitmap file. */
const HEADER = 4096;
/** Of reads. */
const COLD_SHARE = 0.1;

/** A file's bytes as programs see them, and what of them would be there after the power went. */
class SimFile {
  #room = Buffer.alloc(0);
  /** The beginning of its room, which is zeroes behind it. */
  current = this.#room;
  durable = Buffer.alloc(0);
  /** Sectors that were written since they were last synced. */
  readonly dirty = new Set<number>();
  sizeSynced = true;
  locked = false;
  /** How often the device has refused to take what was written; and of how many of these someone has been told. */
  refusals = 0;
  refusalsTold = 0;

  write(bytes: Uint8Array, position: number): void {
    if (position + bytes.length > this.current.length) this.resize(position + bytes.length);
    this.current.set(bytes, position);
    this.#touch(position, bytes.length);
  }

  resize(size: number): void {
    const before = this.current.length;
    if (size === before) return;
    if (size > this.#room.length) {
      // More than it needs now: logs grow by a little, and often.
      this.#room = Buffer.alloc(2 * size);
      this.current.copy(this.#room);
    } else this.#room.fill(0, Math.min(before, size), before);
    this.current = this.#room.subarray(0, size);
    this.sizeSynced = false;
    for (const sector of this.dirty) if (sector * SECTOR >= size) this.dirty.delete(sector);
  }

  /** What a sync that begins now will have made durable when it ends. */
  beginSync(): () => void {
    const size = this.current.length;
    const written = [...this.dirty];
    const first = SECTOR * Math.min(...written);
    const then = Buffer.from(this.current.subarray(first, SECTOR * (Math.max(...written) + 1)));
    return () => {
      this.#resizeDurable(size);
      for (const sector of written) {
        const [start, end] = [sector * SECTOR, Math.min(size, (sector + 1) * SECTOR)];
        if (start >= end) continue;
        then.copy(this.durable, start, start - first, end - first);
        const endNow = Math.min(this.current.length, (sector + 1) * SECTOR);
        if (endNow > start && this.current.compare(then, start - first, end - first, start, endNow) === 0)
          this.dirty.delete(sector);
      }
      if (this.current.length === size) this.sizeSynced = true;
    };
  }

  /** The power goes: of what was not synced, each sector made it or did not, in no order. */
  losePower(random: () => number): void {
    if (!this.sizeSynced && random() < 0.5) this.#resizeDurable(this.current.length);
    for (const sector of this.dirty) {
      if (sector * SECTOR >= this.durable.length || random() < 0.5) continue;
      this.current.copy(this.durable, sector * SECTOR, sector * SECTOR, (sector + 1) * SECTOR);
    }
    this.#room = Buffer.from(this.durable);
    this.current = this.#room;
    this.dirty.clear();
    this.sizeSynced = true;
    this.locked = false;
    this.refusalsTold = this.refusals;
  }

  /** The device refuses the write-back: each sector is as it was on the device, or had come there before. */
  refuse(random: () => number): void {
    const size = this.current.length;
    const { refusals, refusalsTold } = this;
    this.losePower(random);
    this.resize(size);
    this.refusals = refusals + 1;
    this.refusalsTold = refusalsTold;
  }

  #resizeDurable(size: number): void {
    if (size === this.durable.length) return;
    const resized = Buffer.alloc(size);
    this.durable.copy(resized, 0, 0, Math.min(size, this.durable.length));
    this.durable = resized;
  }

  #touch(position: number, length: number): void {
    const last = Math.floor((position + length - 1) / SECTOR);
    for (let sector = Math.floor(position / SECTOR); sector <= last; sector += 1) this.dirty.add(sector);
  }
}

/** Mistakes that can be planted. */
export type DiskLies = {
  /** Says that it has synced these files, and has not. */
  skipSync?: RegExp;
  /** Says that it has written to these files (behind their header), and has not. */
  skipWrite?: RegExp;
  /** Says that it has replaced a text by one like this, and has not. */
  skipReplace?: RegExp;
  /** Says that it has removed these files, and has not. */
  skipRemove?: RegExp;
  /** Says of no file that its bytes were refused. */
  hideRefusals?: boolean;
};

/**
 * A disk in memory, under a process that can be killed at any change, and a machine that can lose its power: then of
 * what was not synced any part may be there, names in directories too.
 */
export class SimDisk implements Disk {
  readonly #scheduler: Scheduler;
  readonly #lies: DiskLies;
  #names = new Map<string, SimFile>();
  #durableNames = new Map<string, SimFile>();
  #directorySyncs = 0;
  /** For each directory, which of its syncs that are over began last. */
  readonly #synced = new Map<string, number>();
  #life = 0;
  #changesLeft = Number.POSITIVE_INFINITY;
  /** Bytes that there is room for, all files together. */
  room = Number.POSITIVE_INFINITY;
  /** The next sync of such a file fails, and what it was to make durable is there or is not. */
  refuseSync: RegExp | undefined;

  constructor(scheduler: Scheduler, lies: DiskLies) {
    this.#scheduler = scheduler;
    this.#lies = lies;
  }

  /** The process is killed at the change after so many more. */
  killAfter(changes: number): void {
    this.#changesLeft = changes;
  }

  /** The device refuses what the kernel writes back of such files, and the kernel lets go of those pages. @returns whether there was any */
  refuseWriteBack(files: RegExp): boolean {
    let refused = false;
    for (const [name, file] of this.#names) {
      if (!files.test(name) || (file.dirty.size === 0 && file.sizeSynced)) continue;
      file.refuse(this.#scheduler.random);
      refused = true;
    }
    return refused;
  }

  /** A new process begins; handles of the old one are dead. */
  restart(powerLost: boolean): void {
    this.#life += 1;
    this.#changesLeft = Number.POSITIVE_INFINITY;
    for (const file of this.#names.values()) file.locked = false;
    if (!powerLost) return;
    const { random } = this.#scheduler;
    const names = new Map<string, SimFile>();
    for (const name of new Set([...this.#names.keys(), ...this.#durableNames.keys()])) {
      const [now, then] = [this.#names.get(name), this.#durableNames.get(name)];
      const file = now === then || random() < 0.5 ? now : then;
      if (file !== undefined) names.set(name, file);
    }
    this.#names = names;
    this.#durableNames = new Map(names);
    for (const file of new Set(names.values())) file.losePower(random);
  }

  open(path: string, mode: OpenMode): DiskFile {
    if (mode === 'create') {
      this.#change();
      if (this.#names.has(path)) throw Object.assign(new Error(`EEXIST: ${path}`), { code: 'EEXIST' });
      this.#names.set(path, new SimFile());
    }
    const file = this.#names.get(path);
    if (file === undefined) throw Object.assign(new Error(`ENOENT: ${path}`), { code: 'ENOENT' });
    return this.#handle(path, file);
  }

  async createLater(path: string, start: Uint8Array, zeroBytes: number): Promise<DiskFile> {
    const life = this.#life;
    await this.#scheduler.turn();
    if (life !== this.#life) throw new KilledError('the process was killed');
    const file = this.open(path, 'create');
    try {
      file.write(start, 0, start.byteLength, 0);
      await this.#scheduler.turn();
      file.zeroAllocated(start.byteLength, zeroBytes);
    } catch (error) {
      if (error instanceof KilledError) throw error;
      file.close();
      this.#names.delete(path);
      throw error;
    }
    return file;
  }

  exists(path: string): boolean {
    return this.#names.has(path);
  }

  list(directory: string): string[] {
    const prefix = `${directory}/`;
    return [...this.#names.keys()]
      .filter((name) => name.startsWith(prefix))
      .map((name) => name.slice(prefix.length))
      .sort();
  }

  makeDirectory(): void {
    this.#change();
  }

  remove(path: string): void {
    this.#change();
    if (this.#lies.skipRemove?.test(path)) return;
    this.#names.delete(path);
  }

  removeTree(directory: string): void {
    this.#change();
    for (const name of [...this.#names.keys()]) if (name.startsWith(`${directory}/`)) this.#names.delete(name);
  }

  async removeLater(path: string): Promise<void> {
    this.remove(path);
  }

  async removeLargeTree(directory: string): Promise<void> {
    this.removeTree(directory);
  }

  readText(path: string): string {
    const file = this.#names.get(path);
    if (file === undefined) throw Object.assign(new Error(`ENOENT: ${path}`), { code: 'ENOENT' });
    return file.current.toString('utf8');
  }

  async replaceText(path: string, text: string): Promise<void> {
    const life = this.#life;
    this.#change();
    if (this.#lies.skipReplace?.test(text)) return;
    const file = new SimFile();
    file.write(Buffer.from(text), 0);
    const end = file.beginSync();
    await this.#scheduler.turn();
    this.#alive(life);
    if (!this.#lies.skipSync?.test(path)) end();
    this.#change();
    this.#names.set(path, file);
    await this.syncDirectory(path.slice(0, path.lastIndexOf('/')));
  }

  async syncDirectory(directory: string): Promise<void> {
    const life = this.#life;
    this.#alive(life);
    const isIn = (name: string): boolean => name.slice(0, name.lastIndexOf('/')) === directory;
    const then = [...this.#names].filter(([name]) => isIn(name));
    this.#directorySyncs += 1;
    const begun = this.#directorySyncs;
    await this.#scheduler.turn();
    this.#alive(life);
    // One that began later has made more durable already.
    if (this.#lies.skipSync?.test(`${directory}/`) || begun < (this.#synced.get(directory) ?? 0)) return;
    this.#synced.set(directory, begun);
    for (const name of [...this.#durableNames.keys()]) if (isIn(name)) this.#durableNames.delete(name);
    for (const [name, file] of then) this.#durableNames.set(name, file);
  }

  #handle(path: string, file: SimFile): DiskFile {
    const life = this.#life;
    let isOpen = true;
    let holdsLock = false;
    // As Linux has it: who opens a file is told of what nobody has been told of yet.
    let seen = file.refusalsTold;
    const alive = (): void => {
      this.#alive(life);
      if (!isOpen) throw new Error(`${path} is closed`);
    };
    const write = (sources: readonly Uint8Array[], position: number): void => {
      alive();
      this.#change();
      if (this.#lies.skipWrite?.test(path) && (position >= HEADER || path.endsWith('.staging'))) return;
      const bytes = Buffer.concat(sources);
      const grows = Math.max(0, position + bytes.length - file.current.length);
      if (grows > this.room) throw Object.assign(new Error('ENOSPC: the disk is full'), { code: 'ENOSPC' });
      this.room -= grows;
      file.write(bytes, position);
    };
    const read = (target: Uint8Array, targetStart: number, length: number, position: number): void => {
      alive();
      target.fill(0, targetStart, targetStart + length);
      target.set(file.current.subarray(position, position + length), targetStart);
    };
    return {
      read,
      readNow: (...given) => {
        alive();
        if (this.#scheduler.random() < COLD_SHARE) return false;
        read(...given);
        return true;
      },
      bringNear: () => this.#scheduler.turn(),
      write: (source, start, length, position) => write([source.subarray(start, start + length)], position),
      writeAll: write,
      sync: async () => {
        alive();
        const end = file.beginSync();
        await this.#scheduler.turn();
        alive();
        if (this.#lies.hideRefusals !== true && file.refusals !== seen) {
          seen = file.refusals;
          file.refusalsTold = seen;
          throw Object.assign(new Error('EIO: i/o error, fdatasync'), { code: 'EIO' });
        }
        if (this.refuseSync?.test(path)) {
          this.refuseSync = undefined;
          file.losePower(this.#scheduler.random);
          throw Object.assign(new Error('EIO: i/o error, fdatasync'), { code: 'EIO' });
        }
        if (!this.#lies.skipSync?.test(path)) end();
      },
      writeBackError: () => {
        alive();
        if (this.#lies.hideRefusals === true || file.refusals === seen) return undefined;
        seen = file.refusals;
        file.refusalsTold = seen;
        return Object.assign(new Error('EIO: i/o error, sync_file_range'), { code: 'EIO' });
      },
      forgetPages: () => undefined,
      resize: (bytes) => {
        alive();
        this.#change();
        file.resize(bytes);
      },
      size: () => file.current.length,
      punchHole: (position, length) =>
        write([Buffer.alloc(Math.min(length, file.current.length - position))], position),
      zeroAllocated: (position, length) => write([Buffer.alloc(length)], position),
      nextData(position) {
        for (let at = position - (position % PAGE); at < file.current.length; at += PAGE) {
          if (!isZero(file.current, at)) return Math.max(at, position);
        }
        return undefined;
      },
      nextHole(position) {
        for (let at = position - (position % PAGE); at < file.current.length; at += PAGE) {
          if (isZero(file.current, at)) return Math.max(at, position);
        }
        return file.current.length;
      },
      tryLock() {
        if (file.locked) return false;
        file.locked = true;
        holdsLock = true;
        return true;
      },
      close: () => {
        isOpen = false;
        if (holdsLock && life === this.#life) file.locked = false;
      },
      letGo: () => {
        isOpen = false;
      },
    };
  }

  #alive(life: number): void {
    if (life !== this.#life) throw new KilledError('the process was killed');
  }

  #change(): void {
    if (this.#changesLeft <= 0) throw new KilledError('the process was killed');
    this.#changesLeft -= 1;
  }
}

const ZERO_PAGE = Buffer.alloc(PAGE);

function isZero(bytes: Buffer, at: number): boolean {
  return ZERO_PAGE.compare(bytes, at, Math.min(at + PAGE, bytes.length), 0, Math.min(PAGE, bytes.length - at)) === 0;
}
