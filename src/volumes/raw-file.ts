import type { Disk, DiskFile } from './disk.ts';

/** A volume's bytes lie in files of at most this many: ext4's largest file is a little less than 16 TiB. */
const RAW_SEGMENT_BYTES = 8 * 1024 ** 4;
const PAGE = 4096;
const ZEROES = new Uint8Array(PAGE);

/**
 * The bytes of a volume as `dd` would give them: sparse files `data.00`, `data.01` … of 8 TiB each, one after the
 * other (so all but the largest volumes are one file, which any tool can read).
 */
export class RawFile {
  readonly #segments: DiskFile[];
  #single: DiskFile | undefined;

  private constructor(segments: DiskFile[]) {
    this.#segments = segments;
    this.#single = segments.length === 1 ? segments[0] : undefined;
  }

  static create(disk: Disk, directory: string, sizeBytes: number): void {
    for (const [number, bytes] of segmentSizes(sizeBytes).entries()) {
      const file = disk.open(segmentPath(directory, number), 'create');
      file.resize(bytes);
      file.syncNow();
      file.close();
    }
  }

  static open(disk: Disk, directory: string, sizeBytes: number, mode: 'read-write' | 'read-only'): RawFile {
    return new RawFile(segmentSizes(sizeBytes).map((_, number) => disk.open(segmentPath(directory, number), mode)));
  }

  /** Makes the files as long as the volume is to be; safe to do again after a crash half way. */
  static grow(disk: Disk, directory: string, sizeBytes: number): void {
    for (const [number, bytes] of segmentSizes(sizeBytes).entries()) {
      const path = segmentPath(directory, number);
      const file = disk.open(path, disk.exists(path) ? 'read-write' : 'create');
      if (file.size() < bytes) file.resize(bytes);
      file.syncNow();
      file.close();
    }
    disk.syncDirectory(directory);
  }

  /** Opens the files that `grow` has added. */
  extend(disk: Disk, directory: string, sizeBytes: number): void {
    for (let number = this.#segments.length; number < segmentSizes(sizeBytes).length; number += 1) {
      this.#segments.push(disk.open(segmentPath(directory, number), 'read-write'));
    }
    this.#single = this.#segments.length === 1 ? this.#segments[0] : undefined;
  }

  read(target: Uint8Array, targetStart: number, length: number, offset: number): void {
    if (this.#single !== undefined) return this.#single.read(target, targetStart, length, offset);
    this.#each(offset, length, (file, position, bytes, done) => file.read(target, targetStart + done, bytes, position));
  }

  write(source: Uint8Array, sourceStart: number, length: number, offset: number): void {
    if (this.#single !== undefined) return this.#single.write(source, sourceStart, length, offset);
    this.#each(offset, length, (file, position, bytes, done) =>
      file.write(source, sourceStart + done, bytes, position),
    );
  }

  writeAll(sources: readonly Uint8Array[], offset: number): void {
    if (this.#single !== undefined) return this.#single.writeAll(sources, offset);
    let at = offset;
    for (const source of sources) {
      this.write(source, 0, source.byteLength, at);
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

  close(): void {
    for (const file of this.#segments) file.close();
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

function segmentPath(directory: string, number: number): string {
  return `${directory}/data.${String(number).padStart(2, '0')}`;
}

function segmentSizes(sizeBytes: number): number[] {
  const sizes: number[] = [];
  for (let left = sizeBytes; left > 0; left -= RAW_SEGMENT_BYTES) sizes.push(Math.min(left, RAW_SEGMENT_BYTES));
  return sizes;
}
