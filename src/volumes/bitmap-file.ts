import type { Disk, DiskFile } from './disk.ts';
import { BITMAP_PAGE_BITS, BITMAP_PAGE_BYTES, PagedBitmap } from './paged-bitmap.ts';

/** A shorter file was never finished. */
export const BITMAP_HEADER_BYTES = 4096;
const HEADER_BYTES = BITMAP_HEADER_BYTES;
const MAGIC = 'CCBITMAP';
const VERSION = 1;
const byte = new Uint8Array(1);

/**
 * A bitmap in memory with a file behind it that holds the same bits: each bit is in the file (in the page cache, so a
 * killed process does not lose it) before it is in memory.
 *
 * File: a 4 KiB header (magic `CCBITMAP`, version u32, bit count u64, little-endian), then the bits, eight a byte, the
 * lowest bit first. Holes are clear bits.
 */
export class BitmapFile {
  readonly bits: PagedBitmap;
  readonly #file: DiskFile;

  private constructor(file: DiskFile, bits: PagedBitmap) {
    this.#file = file;
    this.bits = bits;
  }

  static create(disk: Disk, path: string, bitCount: number): BitmapFile {
    const file = disk.open(path, 'create');
    try {
      file.write(headerOf(bitCount), 0, HEADER_BYTES, 0);
      file.zeroAllocated(HEADER_BYTES, bytesOf(bitCount));
    } catch (error) {
      // A full disk: the next attempt must not find a file that is none.
      file.close();
      disk.remove(path);
      throw error;
    }
    return new BitmapFile(file, new PagedBitmap(bitCount));
  }

  /** The same, not on the thread that calls. */
  static async createLater(disk: Disk, path: string, bitCount: number): Promise<BitmapFile> {
    const file = await disk.createLater(path, headerOf(bitCount), bytesOf(bitCount));
    return new BitmapFile(file, new PagedBitmap(bitCount));
  }

  /**
   * @param bitCount the bits wanted: a volume that grew has more than its older bitmaps
   * @throws NotABitmapError
   */
  static open(disk: Disk, path: string, bitCount: number, mode: 'read-write' | 'read-only' = 'read-write'): BitmapFile {
    const file = disk.open(path, mode);
    try {
      readBitmapHeader(file, path);
    } catch (error) {
      file.close();
      throw error;
    }
    const bits = new PagedBitmap(bitCount);
    const page = new Uint8Array(BITMAP_PAGE_BYTES);
    let at = file.nextData(HEADER_BYTES);
    while (at !== undefined) {
      const number = Math.floor((at - HEADER_BYTES) / BITMAP_PAGE_BYTES);
      if (number * BITMAP_PAGE_BITS >= bitCount) break;
      file.read(page, 0, BITMAP_PAGE_BYTES, HEADER_BYTES + number * BITMAP_PAGE_BYTES);
      bits.loadPage(number, page);
      at = file.nextData(HEADER_BYTES + (number + 1) * BITMAP_PAGE_BYTES);
    }
    return new BitmapFile(file, bits);
  }

  /** Sets the bit, in the file first. @throws ENOSPC; then the bit is not set in memory either */
  set(bit: number): void {
    byte[0] = this.bits.byteOf(bit) | (1 << (bit & 7));
    this.#file.write(byte, 0, 1, HEADER_BYTES + (bit >>> 3));
    this.bits.set(bit);
  }

  /** Sets [from, to), in memory first: for marks that may be lost without harm. */
  setRange(from: number, to: number): void {
    this.bits.setRange(from, to);
    const first = Math.floor(from / BITMAP_PAGE_BITS);
    const last = Math.floor((to - 1) / BITMAP_PAGE_BITS);
    for (const [number, page] of this.bits.pages()) {
      if (number >= first && number <= last) this.writePage(number, page);
    }
  }

  writePage(number: number, page: Uint8Array): void {
    this.#file.write(page, 0, BITMAP_PAGE_BYTES, HEADER_BYTES + number * BITMAP_PAGE_BYTES);
  }

  sync(): Promise<void> {
    return this.#file.sync();
  }

  close(): void {
    this.#file.close();
  }
}

function headerOf(bitCount: number): Buffer {
  const header = Buffer.alloc(HEADER_BYTES);
  header.write(MAGIC, 0, 'latin1');
  header.writeUInt32LE(VERSION, 8);
  header.writeBigUInt64LE(BigInt(bitCount), 12);
  return header;
}

/** The room is taken when the file is made: a guest that overwrites what it has must not fail for want of a dirty bit's. */
function bytesOf(bitCount: number): number {
  return Math.ceil(bitCount / BITMAP_PAGE_BITS) * BITMAP_PAGE_BYTES;
}

/** What was written at the file's beginning is not there (any more). */
export class NotABitmapError extends Error {
  override name = 'NotABitmapError';
}

/** @returns how many bits the file says it holds @throws NotABitmapError */
export function readBitmapHeader(file: DiskFile, path: string): number {
  const header = Buffer.alloc(20);
  file.read(header, 0, 20, 0);
  if (header.toString('latin1', 0, 8) !== MAGIC || header.readUInt32LE(8) !== VERSION) {
    throw new NotABitmapError(`${path} is not a version ${VERSION} bitmap of cleancut's`);
  }
  return Number(header.readBigUInt64LE(12));
}
