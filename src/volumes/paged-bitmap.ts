const PAGE_BYTES = 4096;
const PAGE_BITS = PAGE_BYTES * 8;
const PAGE_SHIFT = 15;

/**
 * A bitmap that takes memory only where bits are set: pages of 4 KiB (32,768 bits), made on the first set bit.
 * A new one costs the same whatever its length, which is what lets a cut of a 16 TiB volume be a swap of pointers.
 */
export class PagedBitmap {
  #length: number;
  readonly #pages: (Uint8Array | undefined)[];

  /** @param length in bits */
  constructor(length: number) {
    this.#length = length;
    this.#pages = new Array(Math.ceil(length / PAGE_BITS));
  }

  get length(): number {
    return this.#length;
  }

  /** Makes the map longer; the new bits are clear. */
  grow(length: number): void {
    if (length < this.#length) throw new Error(`a bitmap of ${this.#length} bits does not shrink to ${length}`);
    this.#length = length;
    this.#pages.length = Math.ceil(length / PAGE_BITS);
  }

  /** On the hot path of every write: does not allocate. */
  get(bit: number): boolean {
    const page = this.#pages[bit >>> PAGE_SHIFT];
    return page !== undefined && (page[(bit >>> 3) & (PAGE_BYTES - 1)] & (1 << (bit & 7))) !== 0;
  }

  /** Whether all bits from `first` to `last` are set. */
  hasAll(first: number, last: number): boolean {
    for (let bit = first; bit <= last; bit += 1) if (!this.get(bit)) return false;
    return true;
  }

  set(bit: number): void {
    this.#pageFor(bit)[(bit >>> 3) & (PAGE_BYTES - 1)] |= 1 << (bit & 7);
  }

  clear(bit: number): void {
    const page = this.#pages[bit >>> PAGE_SHIFT];
    if (page !== undefined) page[(bit >>> 3) & (PAGE_BYTES - 1)] &= ~(1 << (bit & 7));
  }

  /** Sets [from, to). */
  setRange(from: number, to: number): void {
    let bit = from;
    while (bit < to && (bit & 7) !== 0) this.set(bit++);
    while (bit + 8 <= to) {
      const page = this.#pageFor(bit);
      const start = (bit >>> 3) & (PAGE_BYTES - 1);
      const bytes = Math.min((to - bit) >>> 3, PAGE_BYTES - start);
      page.fill(0xff, start, start + bytes);
      bit += bytes * 8;
    }
    while (bit < to) this.set(bit++);
  }

  /** The eight bits that hold `bit`, as they are stored: bit i of the byte is bit (8·n + i) of the map. */
  byteOf(bit: number): number {
    const page = this.#pages[bit >>> PAGE_SHIFT];
    return page === undefined ? 0 : page[(bit >>> 3) & (PAGE_BYTES - 1)];
  }

  /** First set bit at or after `from`; -1 when there is none. */
  nextSet(from: number): number {
    let bit = from;
    while (bit < this.length) {
      const page = this.#pages[bit >>> PAGE_SHIFT];
      if (page === undefined) {
        bit = ((bit >>> PAGE_SHIFT) + 1) * PAGE_BITS;
        continue;
      }
      const byte = page[(bit >>> 3) & (PAGE_BYTES - 1)] >>> (bit & 7);
      if (byte !== 0) {
        const found = bit + (31 - Math.clz32(byte & -byte));
        return found < this.length ? found : -1;
      }
      bit = ((bit >>> 3) + 1) * 8;
    }
    return -1;
  }

  /** First clear bit at or after `from`; `length` when all of the rest are set. */
  nextClear(from: number): number {
    let bit = from;
    while (bit < this.length) {
      const page = this.#pages[bit >>> PAGE_SHIFT];
      if (page === undefined) return bit;
      if (page[(bit >>> 3) & (PAGE_BYTES - 1)] === 0xff) {
        bit = ((bit >>> 3) + 1) * 8;
        continue;
      }
      if (!this.get(bit)) return bit;
      bit += 1;
    }
    return this.length;
  }

  /** How many bits are set. Monitors ask for it, on the guests' thread: it looks at 32 bits at a time. */
  count(): number {
    let total = 0;
    for (const page of this.#pages) {
      if (page === undefined) continue;
      const words = new Int32Array(page.buffer, page.byteOffset, PAGE_BYTES / 4);
      for (const word of words) total += bitsIn(word);
    }
    return total;
  }

  /** The pages that exist, by number; a page holds 32,768 bits. For saving and loading. */
  *pages(): Generator<[number, Uint8Array]> {
    for (let number = 0; number < this.#pages.length; number += 1) {
      const page = this.#pages[number];
      if (page !== undefined) yield [number, page];
    }
  }

  /** Puts a page as it was saved in place; bits past the end are dropped. */
  loadPage(number: number, bytes: Uint8Array): void {
    if (number >= this.#pages.length) return;
    const page = new Uint8Array(PAGE_BYTES);
    page.set(bytes.subarray(0, PAGE_BYTES));
    const bitsLeft = this.length - number * PAGE_BITS;
    for (let bit = bitsLeft; bit < PAGE_BITS; bit += 1) page[bit >>> 3] &= ~(1 << (bit & 7));
    if (page.some((byte) => byte !== 0)) this.#pages[number] = page;
  }

  #pageFor(bit: number): Uint8Array {
    const number = bit >>> PAGE_SHIFT;
    let page = this.#pages[number];
    if (page === undefined) {
      page = new Uint8Array(PAGE_BYTES);
      this.#pages[number] = page;
    }
    return page;
  }
}

/** Sums of two bits, then of four, then of bytes (Warren, "Hacker's Delight", 5-1). */
function bitsIn(word: number): number {
  const pairs = word - ((word >>> 1) & 0x55555555);
  const fours = (pairs & 0x33333333) + ((pairs >>> 2) & 0x33333333);
  return Math.imul((fours + (fours >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24;
}

/** Bytes of one page of a saved bitmap, and the bits in it. */
export const BITMAP_PAGE_BYTES = PAGE_BYTES;
export const BITMAP_PAGE_BITS = PAGE_BITS;

/** The lowest bit at or after `from` that is set in any of them; -1 where none is. */
export function nextSetInAny(bitmaps: readonly PagedBitmap[], from: number): number {
  let nearest = -1;
  for (const bitmap of bitmaps) {
    const found = bitmap.nextSet(from);
    if (found !== -1 && (nearest === -1 || found < nearest)) nearest = found;
  }
  return nearest;
}
