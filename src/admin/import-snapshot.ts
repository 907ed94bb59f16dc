import { z } from 'zod';
import { checkDescription } from '../api/snapshots/snapshot-rules.ts';
import { DEFAULT_VOLUME_TYPE } from '../api/volumes/volume-types.ts';
import { knownId, newId, parseId } from '../types/ids.ts';
import type { Sha256 } from '../types/units.ts';
import { ApiError } from '../wire/api-error.ts';
import { verb } from './verb.ts';

const Begin = z.strictObject({ sizeGiB: z.number().int().positive(), description: z.string().default('') });
const Finish = z.strictObject({
  snapshotId: z.string(),
  root: z.string().regex(/^[0-9a-f]{64}$/),
  dataBlocks: z.number().int().nonnegative(),
  storedBytes: z.number().int().nonnegative(),
});
const Fail = z.strictObject({ snapshotId: z.string(), reason: z.string() });

/** A pending snapshot whose bytes someone else will store: the CLI, straight into the object store. */
export const beginImport = verb(Begin, async (input, call) => {
  const description = checkDescription(input.description);
  call.permit();
  const { catalog, now } = call.services;
  const { accountId } = call.caller;
  const snapshotId = newId('snap');
  const setId = newId('set');
  const startedAt = now().toISOString();
  await catalog.transaction().execute(async (transaction) => {
    await transaction
      .insertInto('snapshot_sets')
      .values({
        set_id: setId,
        account_id: accountId,
        instance_id: null,
        description,
        started_at: startedAt,
        hold_milliseconds: 0,
        state: 'pending',
      })
      .execute();
    await transaction
      .insertInto('snapshots')
      .values({
        snapshot_id: snapshotId,
        account_id: accountId,
        set_id: setId,
        // As EC2 shows snapshots that no volume of the account was the source of.
        volume_id: knownId('vol', 'vol-ffffffff'),
        device_name: null,
        is_root: 0,
        volume_type: DEFAULT_VOLUME_TYPE,
        size_gib: input.sizeGiB,
        description,
        started_at: startedAt,
        completed_at: null,
        state: 'pending',
        state_message: '',
        boundary: null,
        root: null,
        data_blocks: 0,
        stored_bytes: 0,
      })
      .execute();
  });
  return { snapshotId };
});

/** All bytes of an import are stored. */
export const finishImport = verb(Finish, async (input, call) => {
  call.permit();
  const snapshotId = parseId('snap', input.snapshotId);
  const updated = await call.services.catalog
    .updateTable('snapshots')
    .set({ root: input.root as Sha256, data_blocks: input.dataBlocks, stored_bytes: input.storedBytes })
    .where('snapshot_id', '=', snapshotId ?? knownId('snap', 'snap-00000000'))
    .where('account_id', '=', call.caller.accountId)
    .where('state', '=', 'pending')
    .where('boundary', 'is', null)
    .executeTakeFirst();
  if (snapshotId === undefined || updated.numUpdatedRows === 0n) {
    throw new ApiError('InvalidSnapshot.NotFound', `The import '${input.snapshotId}' does not exist.`);
  }
  await call.services.lifecycle.snapshots.completeStored(snapshotId);
  return { snapshotId };
});

/** An import came to nothing. */
export const failImport = verb(Fail, async (input, call) => {
  call.permit();
  const snapshotId = parseId('snap', input.snapshotId);
  if (snapshotId !== undefined)
    await call.services.lifecycle.snapshots.failImport(snapshotId, call.caller.accountId, input.reason);
  return { snapshotId: input.snapshotId };
});
