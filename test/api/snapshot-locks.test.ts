import assert from 'node:assert/strict';
import { DatabaseSync } from 'node:sqlite';
import { after, before, test } from 'node:test';
import { CompleteSnapshotCommand, EBSClient, StartSnapshotCommand } from '@aws-sdk/client-ebs';
import {
  DeleteSnapshotCommand,
  DeregisterImageCommand,
  DescribeLockedSnapshotsCommand,
  EC2Client,
  type LockedSnapshotsInfo,
  LockSnapshotCommand,
  type LockSnapshotCommandInput,
  RegisterImageCommand,
  UnlockSnapshotCommand,
} from '@aws-sdk/client-ec2';
import type { NewUser } from '../../src/admin/users.ts';
import { endsEarlier, type LockedRow, lockNow } from '../../src/api/snapshots/snapshot-lock.ts';
import { newId } from '../../src/types/ids.ts';
import { OWNER } from '../support/catalog-rows.ts';
import { FileCleanup } from '../support/cleanup.ts';
import { createSnapshots, ended, launchInstance } from '../support/instances.ts';
import { readCredentials, startTestServer, type TestServer } from '../support/server.ts';

const DAY = 24 * 3_600_000;

let server: TestServer;
let instanceId: string;
let ebs: EBSClient;
const file = new FileCleanup();
before(async () => {
  server = await startTestServer(file);
  ({ instanceId } = await launchInstance(server.ec2, []));
  const credentials = readCredentials(server.dataDir);
  ebs = new EBSClient({ region: 'us-east-1', endpoint: server.apiUrl, credentials, maxAttempts: 1 });
});
after(async () => {
  ebs.destroy();
  await server.stop();
  file.run();
});

async function oneSnapshot(): Promise<string> {
  const [made] = await ended(server.ec2, await createSnapshots(server.ec2, instanceId));
  return made.SnapshotId ?? '';
}

const lock = (SnapshotId: string, rest: Omit<LockSnapshotCommandInput, 'SnapshotId'>) =>
  server.ec2.send(new LockSnapshotCommand({ SnapshotId, ...rest }));
const unlock = (SnapshotId: string) => server.ec2.send(new UnlockSnapshotCommand({ SnapshotId }));
const remove = (SnapshotId: string) => server.ec2.send(new DeleteSnapshotCommand({ SnapshotId }));

async function locksOn(...SnapshotIds: string[]): Promise<LockedSnapshotsInfo[]> {
  const { Snapshots = [] } = await server.ec2.send(new DescribeLockedSnapshotsCommand({ SnapshotIds }));
  return Snapshots;
}

test('in governance mode nobody deletes it until it is unlocked', async () => {
  const id = await oneSnapshot();
  const asked = Date.now();
  const locked = await lock(id, { LockMode: 'governance', LockDuration: 3 });
  assert.deepEqual([locked.SnapshotId, locked.LockState, locked.LockDuration], [id, 'governance', 3]);
  assert.equal(locked.CoolOffPeriod, undefined);
  const { LockCreatedOn, LockDurationStartTime, LockExpiresOn } = locked;
  assert.ok(LockCreatedOn !== undefined && Math.abs(LockCreatedOn.getTime() - asked) < 60_000);
  assert.deepEqual(LockDurationStartTime, LockCreatedOn);
  assert.equal(Number(LockExpiresOn) - Number(LockCreatedOn), 3 * DAY);
  const { $metadata: _, ...shown } = locked;
  assert.deepEqual(await locksOn(id), [{ ...shown, OwnerId: '000000000001' }]);
  await assert.rejects(remove(id), { name: 'SnapshotLocked', message: new RegExp(`${id}.*governance`) });
  // Shorter, or in the other mode with time to change one's mind.
  assert.equal((await lock(id, { LockMode: 'governance', LockDuration: 1 })).LockDuration, 1);
  const cooling = await lock(id, { LockMode: 'compliance', LockDuration: 2, CoolOffPeriod: 5 });
  assert.deepEqual([cooling.LockState, cooling.CoolOffPeriod], ['compliance-cooloff', 5]);
  assert.deepEqual(cooling.LockCreatedOn, LockCreatedOn);
  assert.equal(Number(cooling.CoolOffPeriodExpiresOn) - Number(cooling.LockDurationStartTime), 5 * 3_600_000);
  await assert.rejects(remove(id), { name: 'SnapshotLocked' });
  assert.equal((await lock(id, { LockMode: 'governance', LockDuration: 1 })).LockState, 'governance');
  assert.equal((await unlock(id)).SnapshotId, id);
  assert.deepEqual(await locksOn(id), []);
  await assert.rejects(unlock(id), { name: 'IncorrectState' });
  await remove(id);
});

test('in compliance mode it can only be locked for longer', async () => {
  const id = await oneSnapshot();
  const locked = await lock(id, { LockMode: 'compliance', LockDuration: 10 });
  assert.equal(locked.LockState, 'compliance');
  const forGood = { name: 'OperationNotPermitted', message: new RegExp(id) };
  await assert.rejects(unlock(id), forGood);
  await assert.rejects(lock(id, { LockMode: 'compliance', LockDuration: 9 }), forGood);
  await assert.rejects(lock(id, { LockMode: 'governance', LockDuration: 20 }), forGood);
  await assert.rejects(lock(id, { LockMode: 'compliance', LockDuration: 20, CoolOffPeriod: 1 }), forGood);
  const sooner = new Date(Date.now() + 10 * DAY - 3_600_000);
  await assert.rejects(lock(id, { LockMode: 'compliance', ExpirationDate: sooner }), forGood);
  assert.deepEqual((await locksOn(id))[0].LockExpiresOn, locked.LockExpiresOn);
  const later = new Date(Date.now() + 12 * DAY);
  const longer = await lock(id, { LockMode: 'compliance', ExpirationDate: later });
  assert.deepEqual([longer.LockExpiresOn, longer.LockDuration], [later, 12]);
  await assert.rejects(remove(id), { name: 'SnapshotLocked', message: new RegExp(later.toISOString()) });
});

test('a pending snapshot is locked at once, and its days count from its completion', async () => {
  const { SnapshotId: id = '' } = await ebs.send(new StartSnapshotCommand({ VolumeSize: 1 }));
  const locked = await lock(id, { LockMode: 'compliance', LockDuration: 2 });
  assert.deepEqual([locked.LockDurationStartTime, locked.LockExpiresOn], [undefined, undefined]);
  await assert.rejects(remove(id), { name: 'SnapshotLocked', message: /not complete yet/ });
  await assert.rejects(lock(id, { LockMode: 'compliance', LockDuration: 1 }), { name: 'OperationNotPermitted' });
  await lock(id, { LockMode: 'compliance', LockDuration: 3 });
  await ebs.send(new CompleteSnapshotCommand({ SnapshotId: id, ChangedBlocksCount: 0 }));
  const [shown] = await locksOn(id);
  assert.ok(Number(shown.LockDurationStartTime) > Number(shown.LockCreatedOn));
  assert.equal(Number(shown.LockExpiresOn) - Number(shown.LockDurationStartTime), 3 * DAY);
});

test('an image that goes with its snapshots leaves the locked one', async () => {
  const id = await oneSnapshot();
  await lock(id, { LockMode: 'governance', LockDuration: 1 });
  const { ImageId } = await server.ec2.send(
    new RegisterImageCommand({
      Name: 'locked',
      RootDeviceName: '/dev/xvda',
      BlockDeviceMappings: [{ DeviceName: '/dev/xvda', Ebs: { SnapshotId: id } }],
    }),
  );
  const gone = await server.ec2.send(new DeregisterImageCommand({ ImageId, DeleteAssociatedSnapshots: true }));
  assert.deepEqual(gone.DeleteSnapshotResults, [{ SnapshotId: id, ReturnCode: 'skipped' }]);
  assert.equal((await locksOn(id)).length, 1);
});

test('a policy can say for how long its user may lock', async (t) => {
  const short = { NumericLessThanEquals: { 'ec2:SnapshotLockDuration': '7', 'ec2:SnapshotCoolOffPeriod': '24' } };
  const policy = {
    Version: '2012-10-17',
    Statement: { Effect: 'Allow', Action: 'ec2:LockSnapshot', Resource: '*', Condition: short },
  };
  const asked = { accountId: '000000000001', userName: 'keeper', policy: JSON.stringify(policy) };
  const credentials = await server.admin.ask<NewUser>('create-user', asked);
  const ec2 = new EC2Client({ region: 'us-east-1', endpoint: server.apiUrl, credentials, maxAttempts: 1 });
  t.after(() => ec2.destroy());
  const SnapshotId = await oneSnapshot();
  const wish = { SnapshotId, LockMode: 'compliance', CoolOffPeriod: 24 } as const;
  await assert.rejects(ec2.send(new LockSnapshotCommand({ ...wish, LockDuration: 8 })), {
    name: 'UnauthorizedOperation',
  });
  await ec2.send(new LockSnapshotCommand({ ...wish, LockDuration: 7 }));
  await assert.rejects(ec2.send(new UnlockSnapshotCommand({ SnapshotId })), { name: 'UnauthorizedOperation' });
  await unlock(SnapshotId);
});

const WRONG: [string, string, Partial<LockSnapshotCommandInput>][] = [
  ['no mode', 'MissingParameter', { LockDuration: 1 }],
  ['another mode', 'InvalidParameterValue', { LockMode: 'legal' as 'governance', LockDuration: 1 }],
  ['no end', 'MissingParameter', { LockMode: 'governance' }],
  ['no day', 'InvalidParameterValue', { LockMode: 'governance', LockDuration: 0 }],
  ['more than a hundred years', 'InvalidParameterValue', { LockMode: 'governance', LockDuration: 36_501 }],
  ['an end that is past', 'InvalidParameterValue', { LockMode: 'governance', ExpirationDate: new Date(0) }],
  [
    'two ends',
    'InvalidParameterCombination',
    { LockMode: 'governance', LockDuration: 1, ExpirationDate: new Date(Date.now() + DAY) },
  ],
  [
    'cooling off in governance mode',
    'InvalidParameterCombination',
    { LockMode: 'governance', LockDuration: 1, CoolOffPeriod: 1 },
  ],
  ['cooling off for too long', 'InvalidParameterValue', { LockMode: 'compliance', LockDuration: 1, CoolOffPeriod: 73 }],
];
for (const [what, name, wrong] of WRONG) {
  test(`a lock is refused: ${what}`, async () => {
    const id = newId('snap');
    await assert.rejects(lock(id, wrong as LockSnapshotCommandInput), { name });
  });
}

test('locks are told by state, a page at a time; and one of a snapshot that is not there is none', async () => {
  const id = await oneSnapshot();
  await assert.rejects(locksOn(newId('snap')), { name: 'InvalidSnapshot.NotFound' });
  assert.deepEqual(await locksOn(id), []);
  for (let at = 0; at < 5; at += 1) await lock(await oneSnapshot(), { LockMode: 'governance', LockDuration: 1 });
  const first = await server.ec2.send(new DescribeLockedSnapshotsCommand({ MaxResults: 5 }));
  const rest = await server.ec2.send(new DescribeLockedSnapshotsCommand({ NextToken: first.NextToken }));
  const all = [...(first.Snapshots ?? []), ...(rest.Snapshots ?? [])].map((each) => each.SnapshotId);
  assert.equal(first.Snapshots?.length, 5);
  assert.equal(new Set(all).size, all.length);
  const byState = async (state: string): Promise<unknown[]> => {
    const Filters = [{ Name: 'lock-state', Values: [state] }];
    const { Snapshots = [] } = await server.ec2.send(new DescribeLockedSnapshotsCommand({ Filters }));
    for (const each of Snapshots) assert.equal(each.LockState, state);
    return Snapshots;
  };
  const number = (await byState('governance')).length + (await byState('compliance')).length;
  assert.equal(number, all.length);
  assert.deepEqual(await byState('expired'), []);
});

test('an expired lock keeps nothing, and another can be put in its place', async (t) => {
  const [first, second] = [await oneSnapshot(), await oneSnapshot()];
  for (const id of [first, second]) await lock(id, { LockMode: 'compliance', LockDuration: 1 });
  await server.stop();
  const catalog = new DatabaseSync(`${server.dataDir}/catalog.sqlite`);
  const yesterday = new Date(Date.now() - DAY - 60_000).toISOString();
  const setBack = catalog.prepare('update snapshot_locks set created_at = ?, set_at = ? where snapshot_id = ?');
  const older = catalog.prepare('update snapshots set completed_at = ? where snapshot_id = ?');
  for (const id of [first, second]) {
    setBack.run(yesterday, yesterday, id);
    older.run(yesterday, id);
  }
  catalog.close();
  server = await startTestServer(t, { dataDir: server.dataDir });
  assert.deepEqual(
    (await locksOn(first, second)).map((each) => each.LockState),
    ['expired', 'expired'],
  );
  await remove(first);
  assert.equal((await lock(second, { LockMode: 'governance', LockDuration: 1 })).LockState, 'governance');
  await unlock(second);
  await remove(second);
});

const SET_AT = '2026-01-01T00:00:00.000Z';
function lockOf(given: Partial<LockedRow>): LockedRow {
  return {
    snapshot_id: newId('snap'),
    account_id: OWNER.account_id,
    completed_at: SET_AT,
    mode: 'compliance',
    cool_off_hours: null,
    created_at: SET_AT,
    set_at: SET_AT,
    duration_days: 10,
    expires_at: null,
    ...given,
  };
}

test('a lock goes from cooling off to compliance, and ends to the millisecond', () => {
  const at = (milliseconds: number) =>
    lockNow(lockOf({ cool_off_hours: 2 }), new Date(Date.parse(SET_AT) + milliseconds)).state;
  assert.equal(at(0), 'compliance-cooloff');
  assert.equal(at(2 * 3_600_000 - 1), 'compliance-cooloff');
  assert.equal(at(2 * 3_600_000), 'compliance');
  assert.equal(at(10 * DAY - 1), 'compliance');
  assert.equal(at(10 * DAY), 'expired');
});

test('whether a lock is longer is told where one of both ends is not known yet, too', () => {
  const now = new Date(SET_AT);
  const onDay = (day: number) => new Date(now.getTime() + day * DAY).toISOString();
  const pending = { completed_at: null };
  const shorter = (next: Partial<LockedRow>, last: Partial<LockedRow>) =>
    endsEarlier(lockOf({ ...pending, ...next }), lockOf({ ...pending, ...last }), now);
  assert.equal(shorter({ duration_days: 9 }, { duration_days: 10 }), true);
  assert.equal(shorter({ duration_days: 10 }, { duration_days: 10 }), false);
  // When its ten days begin nobody knows: a fixed end may be before they are over.
  assert.equal(shorter({ expires_at: onDay(100) }, { duration_days: 10 }), true);
  // But ten days from its completion are over ten days from now, or later.
  assert.equal(shorter({ duration_days: 10 }, { expires_at: onDay(10) }), false);
  assert.equal(shorter({ duration_days: 9 }, { expires_at: onDay(10) }), true);
});
