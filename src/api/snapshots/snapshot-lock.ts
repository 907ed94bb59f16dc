import type { LockedSnapshotsInfo, LockState } from '@aws-sdk/client-ec2';
import type { SnapshotLockRow, SnapshotRow } from '../../catalog/schema.ts';
import { DAY_MILLISECONDS } from '../../types/units.ts';

const HOUR_MILLISECONDS = 3_600_000;

/** A lock, and what its times depend on. */
export type LockedRow = SnapshotLockRow & Pick<SnapshotRow, 'account_id' | 'completed_at'>;

/** A lock as it is at some moment. Times are milliseconds since 1970. */
type LockNow = {
  state: LockState;
  coolOffEndsAt: number | undefined;
  /** Undefined while the snapshot is pending. */
  startsAt: number | undefined;
  expiresAt: number | undefined;
};

/** When a snapshot's lock begins and ends: its days are counted from when the snapshot is complete. */
export function lockNow(lock: LockedRow, now: Date): LockNow {
  const setAt = Date.parse(lock.set_at);
  const startsAt = lock.completed_at === null ? undefined : Math.max(setAt, Date.parse(lock.completed_at));
  const lastsUntil = startsAt === undefined ? undefined : startsAt + lock.duration_days * DAY_MILLISECONDS;
  const expiresAt = lock.expires_at === null ? lastsUntil : Date.parse(lock.expires_at);
  const coolOffEndsAt = lock.cool_off_hours === null ? undefined : setAt + lock.cool_off_hours * HOUR_MILLISECONDS;
  const times = { coolOffEndsAt, startsAt, expiresAt };
  if (expiresAt !== undefined && expiresAt <= now.getTime()) return { state: 'expired', ...times };
  if (lock.mode === 'governance') return { state: 'governance', ...times };
  const isCoolingOff = coolOffEndsAt !== undefined && coolOffEndsAt > now.getTime();
  return { state: isCoolingOff ? 'compliance-cooloff' : 'compliance', ...times };
}

/** Whether a lock would end earlier than the one that it is to replace does, or might. */
export function endsEarlier(next: LockedRow, last: LockedRow, now: Date): boolean {
  const nextEnd = lockNow(next, now).expiresAt;
  const lastEnd = lockNow(last, now).expiresAt;
  if (nextEnd !== undefined && lastEnd !== undefined) return nextEnd < lastEnd;
  // Of a pending snapshot nobody knows when the days begin, only that it is later than now.
  if (lastEnd !== undefined) return now.getTime() + next.duration_days * DAY_MILLISECONDS < lastEnd;
  return nextEnd !== undefined || next.duration_days < last.duration_days;
}

/** A lock as LockSnapshot and DescribeLockedSnapshots show it. */
export function lockView(lock: LockedRow, now: Date): LockedSnapshotsInfo {
  const { state, coolOffEndsAt, startsAt, expiresAt } = lockNow(lock, now);
  return {
    OwnerId: lock.account_id,
    SnapshotId: lock.snapshot_id,
    LockState: state,
    LockDuration: lock.duration_days,
    CoolOffPeriod: lock.cool_off_hours ?? undefined,
    CoolOffPeriodExpiresOn: dateOf(coolOffEndsAt),
    LockCreatedOn: new Date(lock.created_at),
    LockDurationStartTime: dateOf(startsAt),
    LockExpiresOn: dateOf(expiresAt),
  };
}

function dateOf(milliseconds: number | undefined): Date | undefined {
  return milliseconds === undefined ? undefined : new Date(milliseconds);
}
