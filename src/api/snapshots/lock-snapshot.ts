import type {
  LockMode,
  LockSnapshotRequest,
  LockSnapshotResult,
  UnlockSnapshotRequest,
  UnlockSnapshotResult,
} from '@aws-sdk/client-ec2';
import type { CatalogTransaction } from '../../catalog/catalog.ts';
import type { SnapshotLockRow, SnapshotRow } from '../../catalog/schema.ts';
import { locksOf, putLock, removeLock } from '../../catalog/snapshot-locks.ts';
import type { SnapshotId } from '../../types/ids.ts';
import { DAY_MILLISECONDS } from '../../types/units.ts';
import { errors } from '../errors.ts';
import { readSnapshotId } from '../identifiers.ts';
import type { Call, Operation } from '../operation.ts';
import { findOwnSnapshot, stillThere } from './find-snapshot.ts';
import { endsEarlier, type LockedRow, lockNow, lockView } from './snapshot-lock.ts';
import { refreshRecords } from './stored-records.ts';

const MODES: readonly LockMode[] = ['compliance', 'governance'];
const COOL_OFF_HOURS = { least: 1, most: 72 };
const DURATION_DAYS = { least: 1, most: 36_500 };

/** What a request wants of a lock. */
type Wanted = Pick<SnapshotLockRow, 'mode' | 'cool_off_hours' | 'duration_days' | 'expires_at'>;

/**
 * Keeps a snapshot from being deleted, by anyone, or changes how long. In `compliance` mode, when the cooling-off period is
 * over, it can only be made longer. Days count from this request, or from the snapshot's completion if that is later.
 */
export const lockSnapshot: Operation<LockSnapshotRequest, LockSnapshotResult> = {
  honoured: ['SnapshotId', 'LockMode', 'CoolOffPeriod', 'LockDuration', 'ExpirationDate'],

  async run(input, call) {
    const snapshotId = readSnapshotId(input.SnapshotId);
    const now = call.services.now();
    const wanted = readWanted(input, now);
    const context = {
      'ec2:SnapshotLockDuration': wanted.duration_days,
      'ec2:SnapshotCoolOffPeriod': wanted.cool_off_hours,
    };
    await call.permit({ type: 'snapshot', id: snapshotId, context });
    const { OwnerId: _, ...result } = await changeLock(call, snapshotId, async (transaction, snapshot, last) => {
      if (snapshot.state === 'error') throw errors.snapshotFailed(snapshotId);
      const set_at = now.toISOString();
      const lock = { snapshot_id: snapshotId, created_at: last?.created_at ?? set_at, set_at, ...wanted };
      const next = withSnapshot(lock, snapshot);
      if (last !== undefined) checkChange(next, last, now);
      await putLock(transaction, lock);
      return lockView(next, now);
    });
    return result;
  },
};

/** Ends a lock that is in `governance` mode, or cooling off, or has expired. */
export const unlockSnapshot: Operation<UnlockSnapshotRequest, UnlockSnapshotResult> = {
  honoured: ['SnapshotId'],

  async run(input, call) {
    const snapshotId = readSnapshotId(input.SnapshotId);
    await call.permit({ type: 'snapshot', id: snapshotId });
    await changeLock(call, snapshotId, async (transaction, _snapshot, last) => {
      if (last === undefined) throw errors.notLocked(snapshotId);
      const { state, expiresAt } = lockNow(last, call.services.now());
      if (state === 'compliance') throw errors.lockedForGood(snapshotId, expiresAt);
      await removeLock(transaction, snapshotId);
    });
    return { SnapshotId: snapshotId };
  },
};

/**
 * That no lock keeps a snapshot from being deleted. One that has failed holds nothing that a lock could keep.
 * @throws ApiError SnapshotLocked
 */
export async function assertUnlocked(transaction: CatalogTransaction, snapshot: SnapshotRow, now: Date): Promise<void> {
  const lock = await lockOn(transaction, snapshot);
  if (lock === undefined || snapshot.state === 'error') return;
  const { state, expiresAt } = lockNow(lock, now);
  if (state !== 'expired') throw errors.snapshotLocked(snapshot.snapshot_id, state, expiresAt);
}

/** Reads what is there and changes it in one step; the record in the bucket will say so too. */
async function changeLock<Result>(
  call: Call,
  snapshotId: SnapshotId,
  change: (transaction: CatalogTransaction, snapshot: SnapshotRow, last: LockedRow | undefined) => Promise<Result>,
): Promise<Result> {
  const { catalog, lifecycle } = call.services;
  return lifecycle.locks.hold([snapshotId], async () => {
    await findOwnSnapshot(call, snapshotId);
    const result = await catalog.transaction().execute(async (transaction) => {
      const snapshot = await stillThere(transaction, snapshotId);
      const changed = await change(transaction, snapshot, await lockOn(transaction, snapshot));
      await lifecycle.records.markStale(transaction, [snapshotId]);
      return changed;
    });
    await refreshRecords(call, [snapshotId]);
    return result;
  });
}

async function lockOn(transaction: CatalogTransaction, snapshot: SnapshotRow): Promise<LockedRow | undefined> {
  const { snapshot_id } = snapshot;
  const lock = (await locksOf(transaction, [snapshot_id])).get(snapshot_id);
  return lock && withSnapshot(lock, snapshot);
}

function withSnapshot(lock: SnapshotLockRow, { account_id, completed_at }: SnapshotRow): LockedRow {
  return { ...lock, account_id, completed_at };
}

/** @throws ApiError OperationNotPermitted where the last lock allows nothing but to be made longer */
function checkChange(next: LockedRow, last: LockedRow, now: Date): void {
  const { state, expiresAt } = lockNow(last, now);
  if (state !== 'compliance') return;
  const isLonger = next.mode === 'compliance' && next.cool_off_hours === null && !endsEarlier(next, last, now);
  if (!isLonger) throw errors.lockedForGood(last.snapshot_id, expiresAt);
}

/** @throws ApiError MissingParameter, InvalidParameterValue, InvalidParameterCombination */
function readWanted(input: LockSnapshotRequest, now: Date): Wanted {
  const { LockMode: mode, CoolOffPeriod: coolOff, LockDuration: duration, ExpirationDate: expiration } = input;
  if (mode === undefined) throw errors.missing('LockMode');
  if (!MODES.includes(mode)) throw errors.invalidValue('LockMode', mode, `Expected ${MODES.join(' or ')}.`);
  if (coolOff !== undefined) {
    if (mode === 'governance') {
      throw errors.combination('The parameter CoolOffPeriod cannot be used with LockMode governance.');
    }
    checkRange('CoolOffPeriod', coolOff, COOL_OFF_HOURS, 'hours');
  }
  if (duration !== undefined && expiration !== undefined) {
    throw errors.combination('The parameter LockDuration cannot be used with the parameter ExpirationDate.');
  }
  const some = { mode, cool_off_hours: coolOff ?? null };
  if (expiration !== undefined) {
    const days = Math.ceil((expiration.getTime() - now.getTime()) / DAY_MILLISECONDS);
    const reason = `Expected a time in the future, and in the next ${DURATION_DAYS.most} days.`;
    if (days < DURATION_DAYS.least || days > DURATION_DAYS.most) {
      throw errors.invalidValue('ExpirationDate', expiration.toISOString(), reason);
    }
    return { ...some, duration_days: days, expires_at: expiration.toISOString() };
  }
  if (duration === undefined) throw errors.missing('LockDuration or ExpirationDate');
  checkRange('LockDuration', duration, DURATION_DAYS, 'days');
  return { ...some, duration_days: duration, expires_at: null };
}

function checkRange(name: string, value: number, { least, most }: { least: number; most: number }, unit: string): void {
  if (value < least || value > most) throw errors.invalidValue(name, value, `Expected ${least} to ${most} ${unit}.`);
}
