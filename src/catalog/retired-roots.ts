import type { Sha256 } from '../types/units.ts';
import type { CatalogTransaction } from './catalog.ts';

/** Keeps a manifest for a day that nothing names any more: for those who are reading by it. */
export async function retireRoot(transaction: CatalogTransaction, root: Sha256, retiredAt: Date): Promise<void> {
  const retired_at = retiredAt.toISOString();
  await transaction
    .insertInto('retired_roots')
    .values({ root, retired_at })
    .onConflict((conflict) => conflict.column('root').doUpdateSet({ retired_at }))
    .execute();
}
