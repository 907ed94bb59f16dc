import { asBlock, BLOCK_BYTES, type BlockIndex } from '../types/units.ts';
import { BitmapFile, NotABitmapError, readBitmapHeader } from './bitmap-file.ts';
import type { BlockSource } from './block-source.ts';
import type { Disk } from './disk.ts';
import type { RawFile } from './raw-file.ts';

/**
 * Which blocks of a restored volume are local, and the fetching of the others.
 *
 * Two bitmap files: `hydrated` is marked as soon as a block's bytes are in the file (right after a kill, when the page
 * cache lives on); `hydrated.synced` follows it only after a sync of the data (right after a power loss). A block that
 * is not marked is fetched again, over whatever the file has there: so a mark must come before the answer to the guest
 * that wrote it, and must never outlive its bytes.
 */
export class Hydration {
  readonly #disk: Disk;
  readonly #directory: string;
  #blocks: number;
  readonly #local: BitmapFile;
  readonly #synced: BitmapFile;
  readonly #source: BlockSource;
  readonly #fetching = new Map<BlockIndex, Promise<Uint8Array | undefined>>();
  readonly #unsyncedPages = new Set<number>();
  #closed = false;

  private constructor(
    disk: Disk,
    directory: string,
    blocks: number,
    local: BitmapFile,
    synced: BitmapFile,
    source: BlockSource,
  ) {
    this.#disk = disk;
    this.#directory = directory;
    this.#blocks = blocks;
    this.#local = local;
    this.#synced = synced;
    this.#source = source;
  }

  static async create(disk: Disk, directory: string, blocks: number): Promise<void> {
    const synced = await BitmapFile.createLater(disk, `${directory}/hydrated.synced`, blocks);
    try {
      (await BitmapFile.createLater(disk, `${directory}/hydrated`, blocks)).close();
      // This one is read after a power loss: its header must be there.
      await synced.sync();
    } finally {
      synced.close();
    }
  }

  /** @param syncedOnly whether the marks that were never synced may be missing, or more than missing */
  static open(disk: Disk, directory: string, blocks: number, syncedOnly: boolean, source: BlockSource): Hydration {
    const synced = BitmapFile.open(disk, `${directory}/hydrated.synced`, blocks);
    if (syncedOnly) {
      disk.remove(`${directory}/hydrated`);
      const local = BitmapFile.create(disk, `${directory}/hydrated`, blocks);
      for (const [number, page] of synced.bits.pages()) {
        local.writePage(number, page);
        local.bits.loadPage(number, page);
      }
      return new Hydration(disk, directory, blocks, local, synced, source);
    }
    const local = BitmapFile.open(disk, `${directory}/hydrated`, blocks);
    const hydration = new Hydration(disk, directory, blocks, local, synced, source);
    for (const [number] of local.bits.pages()) hydration.#unsyncedPages.add(number);
    return hydration;
  }

  has(block: number): boolean {
    return this.#local.bits.get(block);
  }

  hasRange(offset: number, length: number): boolean {
    const last = Math.floor((offset + length - 1) / BLOCK_BYTES);
    return this.#local.bits.hasAll(Math.floor(offset / BLOCK_BYTES), last);
  }

  hydratedCount(): number {
    return this.#local.bits.count();
  }

  /** The end (bytes, at most `end`) of the stretch of absent blocks that `offset` is in; `offset` itself if it is in none. */
  absentUntil(offset: number, end: number): number {
    const block = Math.floor(offset / BLOCK_BYTES);
    if (this.has(block)) return offset;
    const next = this.#local.bits.nextSet(block);
    return next === -1 ? end : Math.min(end, next * BLOCK_BYTES);
  }

  presentUntil(offset: number, end: number): number {
    return Math.min(end, this.#local.bits.nextClear(Math.floor(offset / BLOCK_BYTES)) * BLOCK_BYTES);
  }

  /** The block's bytes are in the file. @throws ENOSPC; then the block counts as absent, and the guest must be told */
  mark(block: number): void {
    this.#local.set(block);
    this.#unsyncedPages.add(block >>> 15);
  }

  /**
   * Brings one block in; many who ask for the same block wait for one fetch.
   * @returns its bytes (the disk may have been too full to keep them), which are there until the event loop's next turn
   */
  fetch(raw: RawFile, block: BlockIndex): Promise<Uint8Array | undefined> {
    const running = this.#fetching.get(block);
    if (running !== undefined) return running;
    const fetching = this.#source
      .read(block)
      .then((bytes) => {
        this.#arrived(raw, block, bytes);
        return bytes;
      })
      .finally(() => this.#fetching.delete(block));
    this.#fetching.set(block, fetching);
    return fetching;
  }

  /** A read of a range that is not all local. A full disk does not stop it: the bytes then come from the snapshot alone. */
  async readThrough(
    raw: RawFile,
    target: Uint8Array,
    targetStart: number,
    length: number,
    offset: number,
  ): Promise<void> {
    const last = Math.floor((offset + length - 1) / BLOCK_BYTES);
    const absent: BlockIndex[] = [];
    for (let block = Math.floor(offset / BLOCK_BYTES); block <= last; block += 1) {
      if (!this.has(block)) absent.push(asBlock(block));
    }
    const arrived = await Promise.all(
      absent.map(async (block) => {
        const start = Math.max(offset, block * BLOCK_BYTES);
        const end = Math.min(offset + length, (block + 1) * BLOCK_BYTES);
        const bytes = await this.#fetchOrRead(raw, block);
        // A copy: later, when the others are there, the block's memory may be another's.
        const wanted = bytes?.subarray(start - block * BLOCK_BYTES, end - block * BLOCK_BYTES);
        const kept = this.has(block) || wanted === undefined ? undefined : new Uint8Array(wanted);
        return { block, at: targetStart + start - offset, length: end - start, kept };
      }),
    );
    raw.read(target, targetStart, length, offset);
    for (const { block, at, length, kept } of arrived) {
      if (this.has(block)) continue;
      if (kept === undefined) target.fill(0, at, at + length);
      else target.set(kept, at);
    }
  }

  async #fetchOrRead(raw: RawFile, block: BlockIndex): Promise<Uint8Array | undefined> {
    try {
      return await this.fetch(raw, block);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOSPC') return this.#source.read(block);
      throw error;
    }
  }

  /**
   * Fetches all that is absent, in the order of the blocks.
   * @returns false when it was told to stop before the end
   */
  async fetchAll(raw: RawFile, shouldStop: () => boolean): Promise<boolean> {
    const start = this.#local.bits.nextClear(0);
    let settled = start;
    for await (const { block, bytes } of this.#source.blocks(asBlock(start))) {
      if (shouldStop() || this.#closed) return false;
      if (block > settled) this.#markZeroes(settled, block);
      this.#arrived(raw, block, bytes);
      settled = block + 1;
      // Guests first: those that are here now, and those that wait for a block of their own.
      await new Promise(setImmediate);
      if (this.#fetching.size > 0) await Promise.allSettled(this.#fetching.values());
    }
    if (shouldStop() || this.#closed) return false;
    if (settled < this.#blocks) this.#markZeroes(settled, this.#blocks);
    return true;
  }

  /**
   * Called before a sync of the data; what it returns is called after it, and makes durable the marks of the blocks
   * whose bytes that sync covered.
   */
  beginSync(): () => Promise<void> {
    const pages: [number, Uint8Array][] = [];
    for (const [number, page] of this.#local.bits.pages()) {
      if (this.#unsyncedPages.has(number)) pages.push([number, page.slice()]);
    }
    this.#unsyncedPages.clear();
    return async () => {
      if (pages.length === 0 || this.#closed) return;
      for (const [number, page] of pages) this.#synced.writePage(number, page);
      await this.#synced.sync();
    };
  }

  /** The volume has grown: what is new is not in the snapshot, and is local from the start. */
  grow(blocks: number): void {
    const before = this.#blocks;
    this.#blocks = blocks;
    this.#local.bits.grow(blocks);
    this.#synced.bits.grow(blocks);
    this.#markZeroes(before, blocks);
  }

  /** The volume is whole: the marks are no longer needed. */
  remove(): void {
    this.close();
    this.#disk.remove(`${this.#directory}/hydrated`);
    this.#disk.remove(`${this.#directory}/hydrated.synced`);
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#local.close();
    this.#synced.close();
  }

  #arrived(raw: RawFile, block: BlockIndex, bytes: Uint8Array | undefined): void {
    // The guest may have overwritten the block whole while it was on its way: then its bytes are the truth.
    if (this.#closed || this.has(block)) return;
    if (bytes === undefined) raw.zero(block * BLOCK_BYTES, BLOCK_BYTES, false);
    else raw.write(bytes, 0, bytes.byteLength, block * BLOCK_BYTES);
    this.mark(block);
  }

  /** Blocks that the snapshot does not have are zeroes, which the new file is already. */
  #markZeroes(from: number, to: number): void {
    this.#local.setRange(from, to);
    for (let page = from >>> 15; page <= (to - 1) >>> 15; page += 1) this.#unsyncedPages.add(page);
  }
}

/**
 * Whether the marks that were never synced are there to be read. They are not where the disk has refused their beginning,
 * or where the process that was making them anew was killed.
 */
export function hasMarks(disk: Disk, directory: string): boolean {
  const path = `${directory}/hydrated`;
  if (!disk.exists(path)) return false;
  const file = disk.open(path, 'read-only');
  try {
    readBitmapHeader(file, path);
    return true;
  } catch (error) {
    if (error instanceof NotABitmapError) return false;
    throw error;
  } finally {
    file.close();
  }
}
