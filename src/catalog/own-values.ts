import type { Catalog } from './catalog.ts';

/** What the server has kept for itself under a name. */
export async function ownValue(catalog: Catalog, name: string): Promise<string | undefined> {
  const row = await catalog.selectFrom('secrets').select('value').where('name', '=', name).executeTakeFirst();
  return row?.value;
}

/** Keeps it, in the place of what was there. */
export async function keepOwnValue(catalog: Catalog, name: string, value: string): Promise<void> {
  await catalog
    .insertInto('secrets')
    .values({ name, value })
    .onConflict((conflict) => conflict.column('name').doUpdateSet({ value }))
    .execute();
}
