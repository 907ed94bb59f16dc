import { crc32 } from 'node:zlib';
import { PAGE_BYTES, PAGES_PER_BLOCK } from '../types/units.ts';
import type { Disk, DiskFile } from './disk.ts';
import { PageMap } from './page-map.ts';
import { PagedBitmap } from './paged-bitmap.ts';
import type { RawFile } from './raw-file.ts';

const STAGING_HEADER_BYTES = 24;
const MAGIC = 0x47_54_43_43; // "CCTG", little-endian
const LONGEST_RUN_PAGES = PAGES_PER_BLOCK;
const scratch = Buffer.alloc(STAGING_HEADER_BYTES + LONGEST_RUN_PAGES * PAGE_BYTES);
const header = Buffer.alloc(STAGING_HEADER_BYTES);
const NOTHING = Buffer.alloc(0);
/** What the CRC covers. */
const checkedHeader = header.subarray(0, 16);

/** Pages that follow one another. */
export type PageRun = { page: number; count: number };

/**
 * The old bytes of pages that were first overwritten in one epoch, for the cuts before it that still want them.
 *
 * An append-only file of records: a 24-byte header (magic u32, page count u32, first page u64, CRC-32 of those u32,
 * zero u32, little-endian), then the pages. One append is one write call, and it returns before the new bytes go to the
 * volume: whoever finds a page here knows that this is how it was at the epoch's start; whoever does not, that the
 * volume's own bytes are.
 */
export class StagingLog {
  readonly path: string;
  readonly pages: PageMap;
  /** The blocks that have a page here. */
  readonly blocks: PagedBitmap;
  readonly #file: DiskFile;
  #end = 0;

  private constructor(path: string, file: DiskFile, volumeBlocks: number) {
    this.path = path;
    this.#file = file;
    this.pages = new PageMap();
    this.blocks = new PagedBitmap(volumeBlocks);
  }

  static create(disk: Disk, path: string, volumeBlocks: number): StagingLog {
    return new StagingLog(path, disk.open(path, 'create'), volumeBlocks);
  }

  /** The same, not on the thread that calls. */
  static async createLater(disk: Disk, path: string, volumeBlocks: number): Promise<StagingLog> {
    return new StagingLog(path, await disk.createLater(path, NOTHING, 0), volumeBlocks);
  }

  /** Reads the log back after a crash. A record that a kill cut short is dropped: its overwrite had not begun. */
  static open(
    disk: Disk,
    path: string,
    volumeBlocks: number,
    mode: 'read-write' | 'read-only' = 'read-write',
  ): StagingLog {
    const file = disk.open(path, mode);
    const log = new StagingLog(path, file, volumeBlocks);
    const size = file.size();
    let end = 0;
    while (end + STAGING_HEADER_BYTES <= size) {
      file.read(header, 0, STAGING_HEADER_BYTES, end);
      const count = header.readUInt32LE(4);
      const first = Number(header.readBigUInt64LE(8));
      const next = end + STAGING_HEADER_BYTES + count * PAGE_BYTES;
      if (header.readUInt32LE(0) !== MAGIC || header.readUInt32LE(16) !== crc32(header.subarray(0, 16))) break;
      if (next > size) break;
      log.#remember(first, count, end + STAGING_HEADER_BYTES);
      end = next;
    }
    if (mode === 'read-write') file.resize(end);
    log.#end = end;
    return log;
  }

  get bytes(): number {
    return this.#end;
  }

  /**
   * Saves the volume's present bytes of runs of pages, each at most one block's worth; as many as fit with one write.
   * @throws ENOSPC …; then the runs of the write that failed, and those after, are not in the log
   */
  save(volume: RawFile, runs: readonly PageRun[]): void {
    let used = 0;
    let from = 0;
    /** What the disk has only begun to bring: of all runs at once, so that one wait is for all. */
    let coming: { at: number; length: number; offset: number }[] = [];
    const append = (saved: readonly PageRun[]): void => {
      for (const { at, length, offset } of coming) volume.readStored(scratch, at, length, offset);
      coming = [];
      this.#append(saved, used);
    };
    for (const [index, { page, count }] of runs.entries()) {
      const length = count * PAGE_BYTES;
      if (used + STAGING_HEADER_BYTES + length > scratch.length) {
        append(runs.slice(from, index));
        from = index;
        used = 0;
      }
      header.writeUInt32LE(MAGIC, 0);
      header.writeUInt32LE(count, 4);
      header.writeUInt32LE(page % 0x1_0000_0000, 8);
      header.writeUInt32LE(Math.floor(page / 0x1_0000_0000), 12);
      header.writeUInt32LE(crc32(checkedHeader), 16);
      scratch.set(header, used);
      // As they are stored: the pages of an encrypted volume stay as they were encrypted.
      const at = used + STAGING_HEADER_BYTES;
      const offset = page * PAGE_BYTES;
      if (!volume.readStoredNow(scratch, at, length, offset)) coming.push({ at, length, offset });
      used = at + length;
    }
    if (used > 0) append(runs.slice(from));
  }

  #append(runs: readonly PageRun[], length: number): void {
    try {
      this.#file.write(scratch, 0, length, this.#end);
    } catch (error) {
      // A torn record must not stay: a shorter one written over it would leave its tail, guest's bytes, to be read as
      // a header.
      this.#file.resize(this.#end);
      throw error;
    }
    for (const { page, count } of runs) {
      this.#remember(page, count, this.#end + STAGING_HEADER_BYTES);
      this.#end += STAGING_HEADER_BYTES + count * PAGE_BYTES;
    }
  }

  sync(): Promise<void> {
    return this.#file.sync();
  }

  /** See DiskFile. */
  writeBackError(): Error | undefined {
    return this.#file.writeBackError();
  }

  close(): void {
    this.#file.close();
  }

  /** Takes the log away at once. Its room, which may be gigabytes, is given back by another thread. */
  removeNow(disk: Disk): void {
    disk.remove(this.path);
    this.#file.letGo();
  }

  /** The name first, then the close, which gives back what may be gigabytes. */
  async remove(disk: Disk): Promise<void> {
    await disk.removeLater(this.path);
    this.#file.letGo();
  }

  #remember(firstPage: number, count: number, position: number): void {
    for (let page = 0; page < count; page += 1) this.pages.set(firstPage + page, position + page * PAGE_BYTES);
    this.blocks.set(Math.floor(firstPage / PAGES_PER_BLOCK));
  }
}
