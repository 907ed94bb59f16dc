import type { Catalog } from './catalog.ts';

/** The regions that have instances, volumes or snapshots. */
export async function regionsInUse(catalog: Catalog): Promise<string[]> {
  const rows = await catalog
    .selectFrom('instances')
    .select('region')
    .union((q) => q.selectFrom('volumes').select('region'))
    .union((q) => q.selectFrom('snapshots').select('region'))
    .execute();
  return rows.map((row) => row.region).sort();
}
