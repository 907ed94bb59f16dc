import { z } from 'zod';
import { knownId, parseId } from '../types/ids.ts';
import type { Sha256 } from '../types/units.ts';
import { requireOperator } from './operator.ts';
import { verb } from './verb.ts';

const Input = z.strictObject({ snapshotIds: z.array(z.string()).max(100_000) });

/**
 * These snapshots are damaged in the object store, `verify` has found: volumes whose next snapshot would be stored on top
 * of one store everything anew instead.
 */
export const forgetDamaged = verb(Input, async (input, call): Promise<{ volumeIds: string[] }> => {
  requireOperator(call);
  await call.permit();
  const { catalog, lifecycle } = call.services;
  const roots = new Set<Sha256>();
  for (const id of input.snapshotIds) {
    const row = await catalog
      .selectFrom('snapshots')
      .select('root')
      .where('snapshot_id', '=', parseId('snap', id) ?? knownId('snap', 'snap-00000000'))
      .executeTakeFirst();
    if (row?.root != null) roots.add(row.root);
  }
  return { volumeIds: await lifecycle.bases.forgetDamaged(roots) };
});
