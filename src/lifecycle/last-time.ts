import type { Catalog } from '../catalog/catalog.ts';

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
    const row = await this.#catalog
      .selectFrom('secrets')
      .select('value')
      .where('name', '=', this.#name)
      .executeTakeFirst();
    if (row !== undefined) return Date.parse(row.value);
    await this.remember(now);
    return now.getTime();
  }

  async remember(now: Date): Promise<void> {
    const value = now.toISOString();
    await this.#catalog
      .insertInto('secrets')
      .values({ name: this.#name, value })
      .onConflict((conflict) => conflict.column('name').doUpdateSet({ value }))
      .execute();
  }
}
