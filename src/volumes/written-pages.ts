import { PAGE_MASK_BYTES, type PageMask } from '../types/page-mask.ts';
import { PAGE_BYTES, PAGES_PER_BLOCK } from '../types/units.ts';

/** A chunk of the map holds the masks of so many neighbouring blocks: 128 MiB of the volume in 4 KiB. */
const CHUNK_BLOCKS = 256;
const CHUNK_PAGES = CHUNK_BLOCKS * PAGES_PER_BLOCK;
/** 8 MiB of memory, for 256 GiB of the volume; what is written beyond is known by its blocks alone. */
const MOST_CHUNKS = 2048;

/**
 * The pages written in an epoch, in memory alone: what the dirty bits on the disk say of a whole block is refined here,
 * as long as the process lives. An epoch that another process began has none, and then every page of a dirty block
 * counts as written.
 */
export class WrittenPages {
  readonly #chunks = new Map<number, Uint8Array>();
  readonly #mostChunks: number;
  /** The chunk used last: writes come in clusters. */
  #lastNumber = -1;
  #last: Uint8Array | undefined;

  constructor(mostChunks = MOST_CHUNKS) {
    this.#mostChunks = mostChunks;
  }

  /** Bytes [from, to) of the volume were, or are about to be, written. */
  mark(from: number, to: number): void {
    const end = Math.ceil(to / PAGE_BYTES);
    let page = Math.floor(from / PAGE_BYTES);
    while (page < end) {
      const number = Math.floor(page / CHUNK_PAGES);
      const chunk = number === this.#lastNumber ? this.#last : this.#chunkFor(number);
      const chunkEnd = Math.min(end, (number + 1) * CHUNK_PAGES);
      for (; chunk !== undefined && page < chunkEnd; page += 1) {
        const bit = page % CHUNK_PAGES;
        chunk[bit >>> 3] |= 1 << (bit & 7);
      }
      page = chunkEnd;
    }
  }

  /** Adds the block's written pages to the mask. @returns false where they are not known: any may have been written */
  addTo(mask: PageMask, block: number): boolean {
    const chunk = this.#chunks.get(Math.floor(block / CHUNK_BLOCKS));
    if (chunk === undefined) return false;
    const at = (block % CHUNK_BLOCKS) * PAGE_MASK_BYTES;
    for (let index = 0; index < PAGE_MASK_BYTES; index += 1) mask[index] |= chunk[at + index];
    return true;
  }

  #chunkFor(number: number): Uint8Array | undefined {
    let chunk = this.#chunks.get(number);
    if (chunk === undefined) {
      // Where one is missing, nothing is ever known: it must not come later, when some writes have gone by unmarked.
      if (this.#chunks.size >= this.#mostChunks) return undefined;
      chunk = new Uint8Array(CHUNK_BLOCKS * PAGE_MASK_BYTES);
      this.#chunks.set(number, chunk);
    }
    this.#lastNumber = number;
    this.#last = chunk;
    return chunk;
  }
}
