import type { Catalog } from '../catalog/catalog.ts';
import { keepOwnValue, ownValue } from '../catalog/own-values.ts';

/** When a chore that is done every so many hours or days was done last: a restart must not begin its time anew. */
export class LastTime {
  readonly #catalog: Catalog;
  readonly #name: string;

  constructor(catalog: Catalog, name: string) {
    this.#catalog = catalog;
    this.#name = name;
  }

  /** @returns milliseconds since 1970. Where it was never done, its time begins now */
  async since(now: Date): Promise<number> {
    const last = await ownValue(this.#catalog, this.#name);
    if (last !== undefined) return Date.parse(last);
    await this.remember(now);
    return now.getTime();
  }

  remember(now: Date): Promise<void> {
    return keepOwnValue(this.#catalog, this.#name, now.toISOString());
  }
}
