import { z } from 'zod';
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
  const damaged = new Set(input.snapshotIds);
  const rows = await catalog.selectFrom('snapshots').select(['snapshot_id', 'root']).execute();
  const roots = rows.flatMap(({ snapshot_id, root }) => (root !== null && damaged.has(snapshot_id) ? [root] : []));
  return { volumeIds: await lifecycle.bases.forgetDamaged(new Set(roots)) };
});
