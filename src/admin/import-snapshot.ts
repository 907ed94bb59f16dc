import { z } from 'zod';
import { checkWish, planEncryption, protect, recordDataKey } from '../api/encryption.ts';
import { insertSet, NO_VOLUME } from '../api/snapshots/new-set.ts';
import { checkDescription } from '../api/snapshots/snapshot-rules.ts';
import { DEFAULT_VOLUME_TYPE } from '../api/volumes/volume-types.ts';
import type { SnapshotRecord } from '../snapshots/snapshot-record.ts';
import { knownId, parseId } from '../types/ids.ts';
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
  const { snapshotIds } = await call.services.lifecycle.uploads.upload(() =>
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

/**
 * All bytes of an import are stored. Whoever says so says which manifest it has: only the operator may, who can write to
 * the object store anyway.
 */
export const finishImport = verb(Finish, async (input, call) => {
  requireOperator(call);
  await call.permit();
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
  requireOperator(call);
  await call.permit();
  const snapshotId = parseId('snap', input.snapshotId);
  if (snapshotId !== undefined)
    await call.services.lifecycle.snapshots.failImport(snapshotId, call.caller.accountId, input.reason);
  return { snapshotId: input.snapshotId };
});
