import type {
  ModifySnapshotTierRequest,
  ModifySnapshotTierResult,
  RestoreSnapshotTierRequest,
  RestoreSnapshotTierResult,
} from '@aws-sdk/client-ec2';
import { archivesOf, isArchived, putArchive } from '../../catalog/archive.ts';
import type { CatalogTransaction } from '../../catalog/catalog.ts';
import type { SnapshotArchiveRow, SnapshotRow } from '../../catalog/schema.ts';
import { endRestore } from '../../lifecycle/archive-runner.ts';
import type { SnapshotId } from '../../types/ids.ts';
import { errors } from '../errors.ts';
import { readSnapshotId } from '../identifiers.ts';
import type { Call, Operation } from '../operation.ts';
import { assertInNoImage, assertReadable, findOwnSnapshot, stillThere } from './find-snapshot.ts';
import { refreshRecords } from './stored-records.ts';

const RESTORE_DAYS = { least: 1, most: 180 };

/** Moves a snapshot to the archive, whole. Until it is there, it can be used as before. */
export const modifySnapshotTier: Operation<ModifySnapshotTierRequest, ModifySnapshotTierResult> = {
  honoured: ['SnapshotId', 'StorageTier'],

  async run(input, call) {
    const snapshotId = readSnapshotId(input.SnapshotId);
    if (input.StorageTier === undefined) throw errors.missing('StorageTier');
    if (input.StorageTier !== 'archive')
      throw errors.invalidValue('StorageTier', input.StorageTier, 'Expected archive.');
    await call.permit({ type: 'snapshot', id: snapshotId });
    const { lifecycle, now } = call.services;
    requireArchive(call);
    const startedAt = now();
    const isBack = await changeTier(call, snapshotId, async (transaction, snapshot, last) => {
      assertReadable(snapshot);
      await assertInNoImage(transaction, snapshotId);
      // It is there already, and here for a while only: that ends now.
      if (last?.root != null) {
        const ends = { ...last, restored_until: startedAt.toISOString() };
        await putArchive(transaction, { ...ends, operation: 'archival', started_at: startedAt.toISOString() });
        return true;
      }
      await putArchive(transaction, begun(snapshotId, 'archival', startedAt));
      // The move begins with an empty folder.
      await transaction.deleteFrom('deleted_archives').where('snapshot_id', '=', snapshotId).execute();
      return false;
    });
    if (isBack) await lifecycle.archives.endRestores();
    else lifecycle.archives.kick(snapshotId);
    return { SnapshotId: snapshotId, TieringStartTime: startedAt };
  },
};

/** Brings an archived snapshot back, for good or for some days; or changes for how long, of one that is back for a while. */
export const restoreSnapshotTier: Operation<RestoreSnapshotTierRequest, RestoreSnapshotTierResult> = {
  honoured: ['SnapshotId', 'TemporaryRestoreDays', 'PermanentRestore'],

  async run(input, call) {
    const snapshotId = readSnapshotId(input.SnapshotId);
    const days = readDays(input);
    await call.permit({ type: 'snapshot', id: snapshotId });
    const { lifecycle, now } = call.services;
    requireArchive(call);
    const startedAt = now();
    const isMoved = await changeTier(call, snapshotId, async (transaction, snapshot, last) => {
      if (last === undefined || last.root === null) throw errors.notArchived(snapshotId);
      const operation = days === null ? 'permanent-restore' : 'temporary-restore';
      const restore = { ...begun(snapshotId, operation, startedAt), restore_days: days };
      const next = { ...restore, root: last.root, archived_at: last.archived_at };
      if (isArchived(snapshot)) {
        await putArchive(transaction, next);
        return true;
      }
      await endRestore(transaction, next, startedAt);
      await lifecycle.records.markStale(transaction, [snapshotId]);
      return false;
    });
    if (isMoved) lifecycle.archives.kick(snapshotId);
    else await refreshRecords(call, [snapshotId]);
    return {
      SnapshotId: snapshotId,
      RestoreStartTime: startedAt,
      RestoreDuration: days ?? undefined,
      IsPermanentRestore: days === null,
    };
  },
};

/** @throws ApiError UnsupportedOperation */
function requireArchive(call: Call): void {
  if (call.services.hasArchive) return;
  throw errors.unsupported('There is no archive tier here: the server was started without --archive-store.');
}

/** @returns null: for good. @throws ApiError MissingParameter, InvalidParameterValue, InvalidParameterCombination */
function readDays({
  TemporaryRestoreDays: days,
  PermanentRestore: forGood,
}: RestoreSnapshotTierRequest): number | null {
  if (forGood === true && days !== undefined) {
    throw errors.combination('The parameter PermanentRestore cannot be used with the parameter TemporaryRestoreDays.');
  }
  if (forGood === true) return null;
  if (days === undefined) throw errors.missing('TemporaryRestoreDays or PermanentRestore');
  const { least, most } = RESTORE_DAYS;
  if (days < least || days > most) {
    throw errors.invalidValue('TemporaryRestoreDays', days, `Expected ${least} to ${most} days.`);
  }
  return days;
}

function begun(
  snapshot_id: SnapshotId,
  operation: SnapshotArchiveRow['operation'],
  startedAt: Date,
): SnapshotArchiveRow {
  return {
    snapshot_id,
    operation,
    status: 'in-progress',
    detail: '',
    started_at: startedAt.toISOString(),
    root: null,
    archived_at: null,
    restore_days: null,
    restored_until: null,
  };
}

/** Reads what is there and changes it in one step. @throws ApiError IncorrectState while the snapshot is being moved */
function changeTier<Result>(
  call: Call,
  snapshotId: SnapshotId,
  change: (
    transaction: CatalogTransaction,
    snapshot: SnapshotRow,
    last: SnapshotArchiveRow | undefined,
  ) => Promise<Result>,
): Promise<Result> {
  const { catalog, lifecycle } = call.services;
  return lifecycle.locks.hold([snapshotId], async () => {
    await findOwnSnapshot(call, snapshotId);
    return catalog.transaction().execute(async (transaction) => {
      const snapshot = await stillThere(transaction, snapshotId);
      const last = (await archivesOf(transaction, [snapshotId])).get(snapshotId);
      if (last?.status === 'in-progress') throw errors.beingMoved(snapshotId, last.operation);
      return change(transaction, snapshot, last);
    });
  });
}
