/** Slots of the table before that move with each new page: it is empty long before the next one is full. */
const MOVED_AT_ONCE = 8;

/**
 * A map from page number to a position in a file, in a flat array (32 bytes a page at most, 48 while it grows): a
 * staging log of a million pages must not cost a million objects. Open addressing, linear probing; pages are never
 * removed. It grows a few pages at a time, since a guest's write is waiting: all at once took 18 ms when 1 GiB of pages
 * were there, and 0.3 s for 16.
 */
export class PageMap {
  #table = new Table(64);
  /** The smaller one of before, as long as not all of its pages have moved. */
  #before: Table | undefined;
  #moved = 0;
  #size = 0;

  get size(): number {
    return this.#size;
  }

  has(page: number): boolean {
    return this.get(page) !== undefined;
  }

  /** @returns undefined when the page is not there */
  get(page: number): number | undefined {
    // What is in both was set anew since.
    return this.#table.get(page) ?? this.#before?.get(page);
  }

  set(page: number, value: number): void {
    if (this.#size * 2 >= this.#table.slots && this.#before === undefined) {
      this.#before = this.#table;
      this.#moved = 0;
      this.#table = new Table(this.#before.slots * 2);
    }
    const isNew = this.#table.set(page, value);
    if (isNew && this.#before?.get(page) === undefined) this.#size += 1;
    if (this.#before !== undefined) this.#move(this.#before);
  }

  #move(before: Table): void {
    const end = Math.min(before.slots, this.#moved + MOVED_AT_ONCE);
    for (; this.#moved < end; this.#moved += 1) {
      const page = before.pageIn(this.#moved);
      if (page !== undefined && this.#table.get(page) === undefined) this.#table.set(page, before.valueIn(this.#moved));
    }
    if (this.#moved === before.slots) this.#before = undefined;
  }
}

/** Page and value side by side; 0 is an empty slot, so that memory which the system gives need not be touched. */
class Table {
  readonly slots: number;
  readonly #pairs: Float64Array;

  /** @param slots a power of two; more than are ever filled */
  constructor(slots: number) {
    this.slots = slots;
    this.#pairs = new Float64Array(2 * slots);
  }

  get(page: number): number | undefined {
    const at = this.#find(page);
    return this.#pairs[at] === 0 ? undefined : this.#pairs[at + 1];
  }

  /** @returns whether the page was not here */
  set(page: number, value: number): boolean {
    const at = this.#find(page);
    const isNew = this.#pairs[at] === 0;
    this.#pairs[at] = page + 1;
    this.#pairs[at + 1] = value;
    return isNew;
  }

  pageIn(slot: number): number | undefined {
    const key = this.#pairs[2 * slot];
    return key === 0 ? undefined : key - 1;
  }

  valueIn(slot: number): number {
    return this.#pairs[2 * slot + 1];
  }

  /** Where the page is, or would be. */
  #find(page: number): number {
    const mask = this.slots - 1;
    // Fibonacci hashing of the low and high halves: neighbouring pages, the common case, spread over the table.
    let slot = (Math.imul(page | 0, 0x9e3779b1) ^ Math.imul((page / 0x1_0000_0000) | 0, 0x85ebca6b)) >>> 0;
    slot = (slot ^ (slot >>> 15)) & mask;
    for (;;) {
      const key = this.#pairs[2 * slot];
      if (key === 0 || key === page + 1) return 2 * slot;
      slot = (slot + 1) & mask;
    }
  }
}
