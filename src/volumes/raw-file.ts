import type { PageCipher } from '../encryption/page-cipher.ts';
import type { Disk, DiskFile } from './disk.ts';

/** A volume's bytes lie in files of at most this many: ext4's largest file is a little less than 16 TiB. */
const RAW_SEGMENT_BYTES = 8 * 1024 ** 4;
const PAGE = 4096;
const ZEROES = new Uint8Array(PAGE);
/** Encrypting goes by pieces of this many bytes, through buffers that all volumes share: nothing here waits between. */
const PIECE_BYTES = 256 * 1024;
const plainPiece = Buffer.alloc(PIECE_BYTES);
const storedPiece = Buffer.alloc(PIECE_BYTES);

/** Whether a read may wait for the disk. */
type Patience = 'now' | 'wait';

/**
 * The bytes of a volume as `dd` would give them: sparse files `data.00`, `data.01` … of 8 TiB each, one after the
 * other (so all but the largest volumes are one file, which any tool can read). An encrypted volume's are the same,
 * each page under AES-XTS.
 */
export class RawFile {
  readonly #segments: DiskFile[];
  readonly #cipher: PageCipher | undefined;
  #single: DiskFile | undefined;

  private constructor(segments: DiskFile[], cipher: PageCipher | undefined) {
    this.#segments = segments;
    this.#cipher = cipher;
    this.#single = segments.length === 1 ? segments[0] : undefined;
  }

  static async create(disk: Disk, directory: string, sizeBytes: number): Promise<void> {
    for (const [number, bytes] of segmentSizes(sizeBytes).entries()) {
      await setLength(disk.open(segmentPath(directory, number), 'create'), bytes);
    }
  }

  /** @param cipher of an encrypted volume; the file closes it */
  static open(
    disk: Disk,
    directory: string,
    sizeBytes: number,
    mode: 'read-write' | 'read-only',
    cipher: PageCipher | undefined,
  ): RawFile {
    const segments = segmentSizes(sizeBytes).map((_, number) => disk.open(segmentPath(directory, number), mode));
    return new RawFile(segments, cipher);
  }

  /** Makes the files as long as the volume is to be; safe to do again after a crash half way. */
  static async grow(disk: Disk, directory: string, sizeBytes: number): Promise<void> {
    for (const [number, bytes] of segmentSizes(sizeBytes).entries()) {
      const path = segmentPath(directory, number);
      await setLength(disk.open(path, disk.exists(path) ? 'read-write' : 'create'), bytes);
    }
    await disk.syncDirectory(directory);
  }

  /** Opens the files that `grow` has added. */
  extend(disk: Disk, directory: string, sizeBytes: number): void {
    for (let number = this.#segments.length; number < segmentSizes(sizeBytes).length; number += 1) {
      this.#segments.push(disk.open(segmentPath(directory, number), 'read-write'));
    }
    this.#single = this.#segments.length === 1 ? this.#segments[0] : undefined;
  }

  read(target: Uint8Array, targetStart: number, length: number, offset: number): void {
    this.#read('wait', target, targetStart, length, offset);
  }

  /** Reads where nothing must be waited for. @returns false where something must: then anything may be in the target */
  readNow(target: Uint8Array, targetStart: number, length: number, offset: number): boolean {
    return this.#read('now', target, targetStart, length, offset);
  }

  /** Brings a range into memory, so that a read of it need not wait; not on the thread that calls. */
  bringNear(offset: number, length: number): Promise<void> {
    if (this.#single !== undefined) return this.#single.bringNear(offset, length);
    const bringing: Promise<void>[] = [];
    this.#each(offset, length, (file, position, bytes) => {
      bringing.push(file.bringNear(position, bytes));
    });
    return Promise.all(bringing).then(() => undefined);
  }

  /** The bytes as they lie in the file: of an encrypted volume, not decrypted. */
  readStored(target: Uint8Array, targetStart: number, length: number, offset: number): void {
    this.#readStored('wait', target, targetStart, length, offset);
  }

  /** The same, where nothing must be waited for; see readNow. */
  readStoredNow(target: Uint8Array, targetStart: number, length: number, offset: number): boolean {
    return this.#readStored('now', target, targetStart, length, offset);
  }

  #read(how: Patience, target: Uint8Array, targetStart: number, length: number, offset: number): boolean {
    const cipher = this.#cipher;
    if (cipher !== undefined && (offset % PAGE !== 0 || length % PAGE !== 0))
      return this.#readUnaligned(how, cipher, target, targetStart, length, offset);
    if (!this.#readStored(how, target, targetStart, length, offset)) return false;
    cipher?.decrypt(target.subarray(targetStart, targetStart + length), offset / PAGE);
    return true;
  }

  #readStored(how: Patience, target: Uint8Array, targetStart: number, length: number, offset: number): boolean {
    if (this.#single !== undefined) return readFrom(how, this.#single, target, targetStart, length, offset);
    let whole = true;
    this.#each(offset, length, (file, position, bytes, done) => {
      whole &&= readFrom(how, file, target, targetStart + done, bytes, position);
    });
    return whole;
  }

  write(source: Uint8Array, sourceStart: number, length: number, offset: number): void {
    if (this.#cipher !== undefined) {
      return this.#writeEncrypted(this.#cipher, [source.subarray(sourceStart, sourceStart + length)], length, offset);
    }
    this.#writeStored(source, sourceStart, length, offset);
  }

  writeAll(sources: readonly Uint8Array[], offset: number): void {
    if (this.#cipher !== undefined) {
      const length = sources.reduce((sum, source) => sum + source.byteLength, 0);
      return this.#writeEncrypted(this.#cipher, sources, length, offset);
    }
    if (this.#single !== undefined) return this.#single.writeAll(sources, offset);
    let at = offset;
    for (const source of sources) {
      this.#writeStored(source, 0, source.byteLength, at);
      at += source.byteLength;
    }
  }

  /** Zeroes the range; whole pages become holes unless `keepAllocated`. */
  zero(offset: number, length: number, keepAllocated: boolean): void {
    const end = offset + length;
    const firstPage = Math.ceil(offset / PAGE) * PAGE;
    const lastPage = Math.floor(end / PAGE) * PAGE;
    if (firstPage >= lastPage) {
      for (let at = offset; at < end; ) {
        const bytes = Math.min(PAGE, end - at);
        this.write(ZEROES, 0, bytes, at);
        at += bytes;
      }
      return;
    }
    if (firstPage > offset) this.write(ZEROES, 0, firstPage - offset, offset);
    this.#each(firstPage, lastPage - firstPage, (file, position, bytes) =>
      keepAllocated ? file.zeroAllocated(position, bytes) : file.punchHole(position, bytes),
    );
    if (end > lastPage) this.write(ZEROES, 0, end - lastPage, lastPage);
  }

  /** Gives back the space of the whole pages in the range, which then read as zeroes; the edges keep their bytes. */
  discard(offset: number, length: number): void {
    const firstPage = Math.ceil(offset / PAGE) * PAGE;
    const lastPage = Math.floor((offset + length) / PAGE) * PAGE;
    if (firstPage >= lastPage) return;
    this.#each(firstPage, lastPage - firstPage, (file, position, bytes) => file.punchHole(position, bytes));
  }

  /** First byte at or after `offset` that may hold data; undefined when only holes follow. */
  nextData(offset: number): number | undefined {
    for (let number = Math.floor(offset / RAW_SEGMENT_BYTES); number < this.#segments.length; number += 1) {
      const start = number * RAW_SEGMENT_BYTES;
      const found = this.#segments[number].nextData(Math.max(0, offset - start));
      if (found !== undefined) return start + found;
    }
    return undefined;
  }

  /** First byte at or after `offset` that is in a hole, or the end of the file that holds `offset`. */
  nextHole(offset: number): number {
    const number = Math.floor(offset / RAW_SEGMENT_BYTES);
    const start = number * RAW_SEGMENT_BYTES;
    return start + this.#segments[number].nextHole(offset - start);
  }

  async sync(): Promise<void> {
    if (this.#single !== undefined) return this.#single.sync();
    await Promise.all(this.#segments.map((file) => file.sync()));
  }

  /** See DiskFile. */
  writeBackError(): Error | undefined {
    // Each is asked: it tells once.
    return this.#segments.map((file) => file.writeBackError()).find((error) => error !== undefined);
  }

  /** See DiskFile. */
  forgetPages(): void {
    for (const file of this.#segments) file.forgetPages();
  }

  close(): void {
    for (const file of this.#segments) file.close();
    this.#cipher?.close();
  }

  #writeStored(source: Uint8Array, sourceStart: number, length: number, offset: number): void {
    if (this.#single !== undefined) return this.#single.write(source, sourceStart, length, offset);
    this.#each(offset, length, (file, position, bytes, done) =>
      file.write(source, sourceStart + done, bytes, position),
    );
  }

  #readUnaligned(
    how: Patience,
    cipher: PageCipher,
    target: Uint8Array,
    targetStart: number,
    length: number,
    offset: number,
  ): boolean {
    for (let done = 0; done < length; ) {
      const inPage = (offset + done) % PAGE;
      const start = offset + done - inPage;
      const bytes = Math.min(length - done, PIECE_BYTES - inPage);
      const pages = plainPiece.subarray(0, Math.ceil((inPage + bytes) / PAGE) * PAGE);
      if (!this.#readStored(how, pages, 0, pages.length, start)) return false;
      cipher.decrypt(pages, start / PAGE);
      target.set(pages.subarray(inPage, inPage + bytes), targetStart + done);
      done += bytes;
    }
    return true;
  }

  /**
   * A page that is written in part is read, and written whole. What of it the write did not mean comes out as it was,
   * byte for byte, so that a crash half way harms it no more than a plain write would.
   */
  #writeEncrypted(cipher: PageCipher, sources: readonly Uint8Array[], length: number, offset: number): void {
    const from = new Gather(sources);
    for (let done = 0; done < length; ) {
      const inPage = (offset + done) % PAGE;
      const start = offset + done - inPage;
      const bytes = Math.min(length - done, PIECE_BYTES - inPage);
      const span = Math.ceil((inPage + bytes) / PAGE) * PAGE;
      let at = 0;
      if (inPage > 0) {
        this.#encryptPart(cipher, from, start, 0, inPage, Math.min(bytes, PAGE - inPage));
        at = PAGE;
      }
      while (at + PAGE <= inPage + bytes) {
        const pages = from.wholePages(inPage + bytes - at);
        if (pages === undefined) {
          this.#encryptPart(cipher, from, start, at, 0, PAGE);
          at += PAGE;
        } else {
          cipher.encrypt(pages, storedPiece.subarray(at), (start + at) / PAGE);
          at += pages.byteLength;
        }
      }
      if (at < inPage + bytes) this.#encryptPart(cipher, from, start, at, 0, inPage + bytes - at);
      this.#writeStored(storedPiece, 0, span, start);
      done += bytes;
    }
  }

  /** Encrypts one page of the piece, `bytes` of which, from `inPage` on, are new. */
  #encryptPart(cipher: PageCipher, from: Gather, start: number, at: number, inPage: number, bytes: number): void {
    const page = plainPiece.subarray(0, PAGE);
    if (bytes < PAGE) this.read(page, 0, PAGE, start + at);
    from.copy(page, inPage, bytes);
    cipher.encrypt(page, storedPiece.subarray(at, at + PAGE), (start + at) / PAGE);
  }

  #each(
    offset: number,
    length: number,
    use: (file: DiskFile, position: number, bytes: number, done: number) => void,
  ): void {
    let done = 0;
    while (done < length) {
      const at = offset + done;
      const number = Math.floor(at / RAW_SEGMENT_BYTES);
      const position = at - number * RAW_SEGMENT_BYTES;
      const bytes = Math.min(length - done, RAW_SEGMENT_BYTES - position);
      use(this.#segments[number], position, bytes, done);
      done += bytes;
    }
  }
}

/** Makes the file so long, where it is shorter, durably; and closes it. */
async function setLength(file: DiskFile, bytes: number): Promise<void> {
  try {
    if (file.size() < bytes) file.resize(bytes);
    await file.sync();
  } finally {
    file.close();
  }
}

function readFrom(
  how: Patience,
  file: DiskFile,
  target: Uint8Array,
  targetStart: number,
  length: number,
  position: number,
): boolean {
  if (how === 'now') return file.readNow(target, targetStart, length, position);
  file.read(target, targetStart, length, position);
  return true;
}

function segmentPath(directory: string, number: number): string {
  return `${directory}/data.${String(number).padStart(2, '0')}`;
}

function segmentSizes(sizeBytes: number): number[] {
  const sizes: number[] = [];
  for (let left = sizeBytes; left > 0; left -= RAW_SEGMENT_BYTES) sizes.push(Math.min(left, RAW_SEGMENT_BYTES));
  return sizes;
}

/** Bytes that lie in several buffers, taken one piece after the other. */
class Gather {
  readonly #sources: readonly Uint8Array[];
  #index = 0;
  #at = 0;

  constructor(sources: readonly Uint8Array[]) {
    this.#sources = sources;
  }

  /** The next whole pages where they lie, at most so many bytes; undefined when the next page is in two buffers. */
  wholePages(most: number): Uint8Array | undefined {
    this.#skipEmpty();
    const source = this.#sources[this.#index];
    const bytes = Math.floor(Math.min(most, source.byteLength - this.#at) / PAGE) * PAGE;
    if (bytes === 0) return undefined;
    const pages = source.subarray(this.#at, this.#at + bytes);
    this.#at += bytes;
    return pages;
  }

  copy(target: Uint8Array, targetStart: number, bytes: number): void {
    for (let done = 0; done < bytes; ) {
      this.#skipEmpty();
      const source = this.#sources[this.#index];
      const piece = source.subarray(this.#at, this.#at + bytes - done);
      target.set(piece, targetStart + done);
      this.#at += piece.byteLength;
      done += piece.byteLength;
    }
  }

  #skipEmpty(): void {
    while (this.#at === this.#sources[this.#index].byteLength) {
      this.#index += 1;
      this.#at = 0;
    }
  }
}
