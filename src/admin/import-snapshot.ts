import { z } from 'zod';
import { checkWish, planEncryption, protect, recordDataKey } from '../api/encryption.ts';
import { insertSet, NO_VOLUME } from '../api/snapshots/new-set.ts';
import { checkDescription } from '../api/snapshots/snapshot-rules.ts';
import { DEFAULT_VOLUME_TYPE } from '../api/volumes/volume-types.ts';
import type { SnapshotRecord } from '../snapshots/snapshot-record.ts';
import { parseId } from '../types/ids.ts';
import type { Sha256 } from '../types/units.ts';
import { ApiError } from '../wire/api-error.ts';
import { requireOperator } from './operator.ts';
import { verb } from './verb.ts';

const Begin = z.strictObject({
  sizeGiB: z.number().int().positive(),
  description: z.string().default(''),
  encrypted: z.boolean().optional(),
  kmsKeyId: z.string().optional(),
});

/** An import that may go on, with the wrapped key of one that is to be encrypted. */
export type BegunImport = { snapshotId: string; encryption: SnapshotRecord['encryption'] };
const Finish = z.strictObject({
  snapshotId: z.string(),
  root: z.string().regex(/^[0-9a-f]{64}$/),
  dataBlocks: z.number().int().nonnegative(),
  storedBytes: z.number().int().nonnegative(),
});
const Progress = z.strictObject({
  snapshotId: z.string(),
  doneBlocks: z.number().int().nonnegative(),
  totalBlocks: z.number().int().nonnegative(),
  storedBytes: z.number().int().nonnegative(),
});
const Fail = z.strictObject({ snapshotId: z.string(), reason: z.string() });

/** A pending snapshot whose bytes someone else will store: the CLI, straight into the object store. */
export const beginImport = verb(Begin, async (input, call): Promise<BegunImport> => {
  requireOperator(call);
  const description = checkDescription(input.description);
  await call.permit();
  const wish = { encrypted: input.encrypted, kmsKeyId: input.kmsKeyId };
  checkWish(wish);
  const protection = await protect(call, await planEncryption(call, wish, undefined));
  const { catalog, now } = call.services;
  // Not while a collection runs: once the import is recorded, none begins.
  const { snapshotIds } = await call.services.lifecycle.uploads.upload('request', () =>
    catalog.transaction().execute(async (transaction) => {
      await recordDataKey(transaction, protection);
      return insertSet(transaction, call, {
        instanceId: null,
        description,
        startedAt: now(),
        holdMilliseconds: 0,
        snapshots: [
          {
            volumeId: NO_VOLUME,
            volumeType: DEFAULT_VOLUME_TYPE,
            sizeGiB: input.sizeGiB,
            device: undefined,
            tags: new Map(),
            encryption: protection,
            bytes: undefined,
          },
        ],
      });
    }),
  );
  const { made } = protection;
  return {
    snapshotId: snapshotIds[0],
    encryption: made && { dataKeyId: made.data_key_id, kmsKeyArn: made.kms_key_arn, wrapped: made.wrapped },
  };
});

/** An import goes on: nobody is to take it for lost. @throws ApiError InvalidSnapshot.NotFound when it does not, any more */
export const importProgress = verb(Progress, async ({ snapshotId, ...progress }, call) => {
  requireOperator(call);
  await call.permit();
  const id = parseId('snap', snapshotId);
  const goesOn = id !== undefined && (await call.services.lifecycle.imports.heard(id, call.caller.accountId, progress));
  if (!goesOn) throw notGoingOn(snapshotId);
  return { snapshotId };
});

/**
 * All bytes of an import are stored. Whoever says so says which manifest it has: only the operator may, who can write to
 * the object store anyway.
 */
export const finishImport = verb(Finish, async (input, call) => {
  requireOperator(call);
  await call.permit();
  const snapshotId = parseId('snap', input.snapshotId);
  if (snapshotId === undefined) throw notGoingOn(input.snapshotId);
  const { catalog, lifecycle } = call.services;
  const root = input.root as Sha256;
  const updated = await catalog
    .updateTable('snapshots')
    .set({ root, data_blocks: input.dataBlocks, stored_bytes: input.storedBytes })
    .where('snapshot_id', '=', snapshotId)
    .where('account_id', '=', call.caller.accountId)
    .where('state', '=', 'pending')
    .where('boundary', 'is', null)
    .executeTakeFirst();
  if (updated.numUpdatedRows === 0n) {
    // Said again by who did not hear the answer: the server went away just then.
    const earlier = await catalog
      .selectFrom('snapshots')
      .select('snapshot_id')
      .where('snapshot_id', '=', snapshotId)
      .where('account_id', '=', call.caller.accountId)
      .where('root', '=', root)
      .executeTakeFirst();
    if (earlier === undefined) throw notGoingOn(snapshotId);
  }
  await lifecycle.snapshots.completeStored(snapshotId);
  return { snapshotId };
});

function notGoingOn(snapshotId: string): ApiError {
  return new ApiError('InvalidSnapshot.NotFound', `The import '${snapshotId}' does not exist, or has ended.`);
}

/** An import came to nothing. */
export const failImport = verb(Fail, async (input, call) => {
  requireOperator(call);
  await call.permit();
  const snapshotId = parseId('snap', input.snapshotId);
  if (snapshotId !== undefined)
    await call.services.lifecycle.snapshots.failImport(snapshotId, call.caller.accountId, input.reason);
  return { snapshotId: input.snapshotId };
});
