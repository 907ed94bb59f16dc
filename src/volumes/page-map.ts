/**
 * A map from page number to a position in a file, in two flat arrays (32 bytes a page at most): a staging log of a
 * million pages must not cost a million objects. Open addressing, linear probing; pages are never removed.
 */
export class PageMap {
  #keys = new Float64Array(64).fill(-1);
  #values = new Float64Array(64);
  #size = 0;

  get size(): number {
    return this.#size;
  }

  has(page: number): boolean {
    return this.#keys[this.#slot(page)] === page;
  }

  /** @returns undefined when the page is not there */
  get(page: number): number | undefined {
    const slot = this.#slot(page);
    return this.#keys[slot] === page ? this.#values[slot] : undefined;
  }

  set(page: number, value: number): void {
    const slot = this.#slot(page);
    if (this.#keys[slot] !== page) {
      if (this.#size * 2 >= this.#keys.length) {
        this.#grow();
        this.set(page, value);
        return;
      }
      this.#keys[slot] = page;
      this.#size += 1;
    }
    this.#values[slot] = value;
  }

  #slot(page: number): number {
    const mask = this.#keys.length - 1;
    // Fibonacci hashing of the low and high halves: neighbouring pages, the common case, spread over the table.
    let slot = (Math.imul(page | 0, 0x9e3779b1) ^ Math.imul((page / 0x1_0000_0000) | 0, 0x85ebca6b)) >>> 0;
    slot = (slot ^ (slot >>> 15)) & mask;
    while (this.#keys[slot] !== -1 && this.#keys[slot] !== page) slot = (slot + 1) & mask;
    return slot;
  }

  #grow(): void {
    const keys = this.#keys;
    const values = this.#values;
    this.#keys = new Float64Array(keys.length * 2).fill(-1);
    this.#values = new Float64Array(keys.length * 2);
    this.#size = 0;
    for (let slot = 0; slot < keys.length; slot += 1) if (keys[slot] !== -1) this.set(keys[slot], values[slot]);
  }
}
