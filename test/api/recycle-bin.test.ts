import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { DatabaseSync } from 'node:sqlite';
import { after, before, test } from 'node:test';
import {
  CompleteSnapshotCommand,
  EBSClient,
  ListSnapshotBlocksCommand,
  PutSnapshotBlockCommand,
  StartSnapshotCommand,
} from '@aws-sdk/client-ebs';
import {
  CopySnapshotCommand,
  CreateTagsCommand,
  CreateVolumeCommand,
  DeleteSnapshotCommand,
  DeleteTagsCommand,
  DescribeSnapshotAttributeCommand,
  DescribeSnapshotsCommand,
  DescribeTagsCommand,
  EC2Client,
  ListSnapshotsInRecycleBinCommand,
  LockSnapshotCommand,
  ModifySnapshotAttributeCommand,
  RegisterImageCommand,
  RestoreSnapshotFromRecycleBinCommand,
  type SnapshotRecycleBinInfo,
  type Tag,
} from '@aws-sdk/client-ec2';
import type { RestoredSet } from '../../src/admin/restore-set.ts';
import type { SetsReport } from '../../src/admin/sets.ts';
import type { NewUser } from '../../src/admin/users.ts';
import { keeps } from '../../src/api/recycle-bin/retention.ts';
import { newId } from '../../src/types/ids.ts';
import { FileCleanup } from '../support/cleanup.ts';
import { createSnapshots, ended, launchInstance, type TestInstance } from '../support/instances.ts';
import { readCredentials, startTestServer, type TestServer } from '../support/server.ts';
import { type Credentials, rest, send, sha256Base64, sign } from '../support/signed-request.ts';

const DAY = 24 * 3_600_000;
const NOT_FOUND = { name: 'InvalidSnapshot.NotFound' };

let server: TestServer;
let instance: TestInstance;
let ebs: EBSClient;
const file = new FileCleanup();
before(async () => {
  server = await startTestServer(file);
  instance = await launchInstance(server.ec2, []);
  const credentials = readCredentials(server.dataDir);
  ebs = new EBSClient({ region: 'us-east-1', endpoint: server.apiUrl, credentials, maxAttempts: 1 });
});
after(async () => {
  ebs.destroy();
  await server.stop();
  file.run();
});

type Rule = {
  Identifier: string;
  RuleArn: string;
  LockState: string;
  LockEndTime?: number;
  RetentionPeriod: { RetentionPeriodValue: number };
  Description: string;
};
type Said = { status: number; code: string; json: Record<string, unknown> & Partial<Rule> };

/** A call of the Recycle Bin's own API, which EC2's client does not know. */
async function rbin(method: string, path: string, body?: object, credentials?: Credentials): Promise<Said> {
  const request = rest(method, path, {}, body === undefined ? '' : JSON.stringify(body));
  const signing = { service: 'rbin', credentials: credentials ?? readCredentials(server.dataDir) };
  const answer = await send(server.apiUrl, await sign(server.apiUrl, request, signing));
  return { status: answer.status, code: answer.code, json: answer.body === '' ? {} : JSON.parse(answer.body) };
}

const days = (RetentionPeriodValue: number) => ({
  RetentionPeriod: { RetentionPeriodValue, RetentionPeriodUnit: 'DAYS' },
});

/** A rule that is gone after the test. */
async function rule(t: { after: (undo: () => Promise<unknown>) => void }, wanted: object): Promise<Rule> {
  const made = await rbin('POST', '/rules', { ResourceType: 'EBS_SNAPSHOT', ...days(1), ...wanted });
  assert.equal(made.status, 201, JSON.stringify(made.json));
  t.after(() => rbin('DELETE', `/rules/${made.json.Identifier}`));
  return made.json as Rule;
}

async function oneSnapshot(Tags: Tag[] = []): Promise<string> {
  const tagged = Tags.length === 0 ? {} : { TagSpecifications: [{ ResourceType: 'snapshot' as const, Tags }] };
  const [made] = await ended(server.ec2, await createSnapshots(server.ec2, instance.instanceId, tagged));
  return made.SnapshotId ?? '';
}

const remove = (SnapshotId: string) => server.ec2.send(new DeleteSnapshotCommand({ SnapshotId }));
const restore = (SnapshotId: string) => server.ec2.send(new RestoreSnapshotFromRecycleBinCommand({ SnapshotId }));
async function bin(...SnapshotIds: string[]): Promise<SnapshotRecycleBinInfo[]> {
  return (await server.ec2.send(new ListSnapshotsInRecycleBinCommand({ SnapshotIds }))).Snapshots ?? [];
}
async function isInBin(id: string): Promise<boolean> {
  return (await bin()).some(({ SnapshotId }) => SnapshotId === id);
}

test('a deleted snapshot that a rule keeps is gone for everything but the bin, and comes back with its bytes', async (t) => {
  await rule(t, days(3));
  const client = await server.connect(instance.root);
  t.after(() => client.close());
  const bytes = Buffer.alloc(65_536, 'kept');
  await client.write(0, bytes);
  const id = await oneSnapshot([{ Key: 'k', Value: 'v' }]);
  const [described] = (await server.ec2.send(new DescribeSnapshotsCommand({ SnapshotIds: [id] }))).Snapshots ?? [];
  const asked = Date.now();
  await remove(id);

  const [shown] = await bin(id);
  assert.deepEqual([shown.SnapshotId, shown.VolumeId, shown.Description], [id, instance.root, '']);
  const { RecycleBinEnterTime: entered, RecycleBinExitTime: exit } = shown;
  assert.ok(Math.abs(Number(entered) - asked) < 60_000);
  assert.equal(Number(exit) - Number(entered), 3 * DAY);
  const { Snapshots: all = [] } = await server.ec2.send(new DescribeSnapshotsCommand({ OwnerIds: ['self'] }));
  assert.ok(!all.some(({ SnapshotId }) => SnapshotId === id));
  const uses: [string, () => Promise<unknown>][] = [
    ['describe', () => server.ec2.send(new DescribeSnapshotsCommand({ SnapshotIds: [id] }))],
    ['delete', () => remove(id)],
    ['volume', () => server.ec2.send(new CreateVolumeCommand({ AvailabilityZone: 'us-east-1a', SnapshotId: id }))],
    ['copy', () => server.ec2.send(new CopySnapshotCommand({ SourceRegion: 'us-east-1', SourceSnapshotId: id }))],
    [
      'share',
      () =>
        server.ec2.send(
          new ModifySnapshotAttributeCommand({
            SnapshotId: id,
            CreateVolumePermission: { Add: [{ UserId: '000000000002' }] },
          }),
        ),
    ],
    [
      'attribute',
      () =>
        server.ec2.send(new DescribeSnapshotAttributeCommand({ SnapshotId: id, Attribute: 'createVolumePermission' })),
    ],
    [
      'lock',
      () => server.ec2.send(new LockSnapshotCommand({ SnapshotId: id, LockMode: 'governance', LockDuration: 1 })),
    ],
    [
      'image',
      () =>
        server.ec2.send(
          new RegisterImageCommand({
            Name: 'of what is deleted',
            RootDeviceName: '/dev/xvda',
            BlockDeviceMappings: [{ DeviceName: '/dev/xvda', Ebs: { SnapshotId: id } }],
          }),
        ),
    ],
  ];
  for (const [what, use] of uses) await assert.rejects(use(), NOT_FOUND, what);
  await assert.rejects(ebs.send(new ListSnapshotBlocksCommand({ SnapshotId: id })), {
    name: 'ResourceNotFoundException',
  });
  await assert.rejects(ebs.send(new StartSnapshotCommand({ VolumeSize: 1, ParentSnapshotId: id })), {
    name: 'ResourceNotFoundException',
  });
  await assert.rejects(server.connect(id));
  assert.deepEqual((await server.admin.ask<{ snapshots: object }>('status')).snapshots, { recoverable: 1 });

  // What can be done to it: its tags, but not the one that says where it is.
  const tags = async (): Promise<(string | undefined)[]> => {
    const { Tags = [] } = await server.ec2.send(
      new DescribeTagsCommand({ Filters: [{ Name: 'resource-id', Values: [id] }] }),
    );
    return Tags.map(({ Key, Value }) => `${Key}=${Value}`);
  };
  assert.deepEqual(await tags(), ['aws:recycle-bin:resource-in-bin=true', 'k=v']);
  await server.ec2.send(new CreateTagsCommand({ Resources: [id], Tags: [{ Key: 'k', Value: 'w' }] }));
  await server.ec2.send(new DeleteTagsCommand({ Resources: [id] }));
  const own = { Resources: [id], Tags: [{ Key: 'aws:recycle-bin:resource-in-bin' }] };
  await assert.rejects(server.ec2.send(new DeleteTagsCommand(own)), { name: 'InvalidParameterValue' });
  assert.deepEqual(await tags(), ['aws:recycle-bin:resource-in-bin=true']);

  const { $metadata: _, ...restored } = await restore(id);
  assert.deepEqual(restored, {
    SnapshotId: id,
    OwnerId: described.OwnerId,
    Description: '',
    Encrypted: false,
    Progress: '100%',
    StartTime: described.StartTime,
    State: 'completed',
    VolumeId: instance.root,
    VolumeSize: 1,
  });
  assert.deepEqual(await bin(), []);
  assert.deepEqual(await tags(), []);
  await assert.rejects(restore(id), NOT_FOUND);
  await assert.rejects(bin(id), NOT_FOUND);
  const reader = await server.connect(id);
  assert.deepEqual(await reader.read(0, bytes.length), bytes);
  await reader.close();
});

test('nothing that a snapshot in the bin needs is garbage; when it is deleted for good, it is', async (t) => {
  const { Identifier } = await rule(t, {});
  // Of no volume, which would keep it, too.
  const { SnapshotId: id = '' } = await ebs.send(new StartSnapshotCommand({ VolumeSize: 1 }));
  const block = randomBytes(524_288);
  await ebs.send(
    new PutSnapshotBlockCommand({
      SnapshotId: id,
      BlockIndex: 7,
      BlockData: block,
      DataLength: block.length,
      Checksum: sha256Base64(block),
      ChecksumAlgorithm: 'SHA256',
    }),
  );
  await ebs.send(new CompleteSnapshotCommand({ SnapshotId: id, ChangedBlocksCount: 1 }));
  await ended(server.ec2, [{ SnapshotId: id }]);
  const garbage = async () => (await server.admin.ask<{ objects: number }>('collect', { remove: false })).objects;
  const before = await garbage();
  await remove(id);
  assert.equal(await isInBin(id), true);
  assert.equal(await garbage(), before);
  await restore(id);
  await rbin('DELETE', `/rules/${Identifier}`);
  await remove(id);
  assert.equal(await isInBin(id), false);
  assert.ok((await garbage()) > before);
});

test('which snapshots rules keep, and for how long', async (t) => {
  assert.equal(await isInBin(await deleted([])), false);
  await rule(t, { ...days(2), ResourceTags: [{ ResourceTagKey: 'tier', ResourceTagValue: 'gold' }] });
  await rule(t, { ...days(5), ResourceTags: [{ ResourceTagKey: 'legal' }] });
  assert.equal(await isInBin(await deleted([{ Key: 'tier', Value: 'silver' }])), false);
  const daysOf = async (tags: Tag[]): Promise<number> => {
    const [{ RecycleBinEnterTime, RecycleBinExitTime }] = await bin(await deleted(tags));
    return (Number(RecycleBinExitTime) - Number(RecycleBinEnterTime)) / DAY;
  };
  assert.equal(await daysOf([{ Key: 'tier', Value: 'gold' }]), 2);
  // The longest, of those that it matches.
  const both = [
    { Key: 'tier', Value: 'gold' },
    { Key: 'legal', Value: 'hold' },
  ];
  assert.equal(await daysOf(both), 5);
  await rule(t, { ...days(4), ExcludeResourceTags: [{ ResourceTagKey: 'scratch', ResourceTagValue: 'yes' }] });
  assert.equal(await daysOf([{ Key: 'tier', Value: 'gold' }]), 4);
  assert.equal(await daysOf([{ Key: 'scratch', Value: 'no' }]), 4);
  assert.equal(await isInBin(await deleted([{ Key: 'scratch', Value: 'yes' }])), false);
  // Nothing is in one that is not complete.
  const { SnapshotId: pending = '' } = await ebs.send(new StartSnapshotCommand({ VolumeSize: 1 }));
  await remove(pending);
  assert.equal(await isInBin(pending), false);
});

async function deleted(tags: Tag[]): Promise<string> {
  const id = await oneSnapshot(tags);
  await remove(id);
  return id;
}

test('a rule with tags keeps what has one of them; one without keeps all but what it excludes', () => {
  const keptBy = (wanted: object[], excluded: object[], tags: Record<string, string>) =>
    keeps(
      { resource_tags: JSON.stringify(wanted), exclude_resource_tags: JSON.stringify(excluded) },
      new Map(Object.entries(tags)),
    );
  const [any, one] = [{ ResourceTagKey: 'a' }, { ResourceTagKey: 'a', ResourceTagValue: '' }];
  assert.equal(keptBy([], [], {}), true);
  assert.equal(keptBy([any], [], {}), false);
  assert.equal(keptBy([any], [], { a: 'x' }), true);
  assert.equal(keptBy([one], [], { a: 'x' }), false);
  assert.equal(keptBy([one], [], { a: '' }), true);
  assert.equal(keptBy([{ ResourceTagKey: 'b' }, any], [], { a: 'x' }), true);
  assert.equal(keptBy([], [any], { a: 'x' }), false);
  assert.equal(keptBy([], [one], { a: 'x' }), true);
});

test('a set is restored without what is in the bin, which is named', async (t) => {
  await rule(t, {});
  const { instanceId, volumes } = await launchInstance(server.ec2, [1]);
  const made = await ended(server.ec2, await createSnapshots(server.ec2, instanceId));
  const data = made.find(({ VolumeId }) => VolumeId === volumes[0])?.SnapshotId ?? '';
  await remove(data);
  const { sets } = await server.admin.ask<SetsReport>('sets');
  const set = sets.find((each) => each.instanceId === instanceId);
  assert.deepEqual(set?.snapshots.map(({ state }) => state).sort(), ['completed', 'recoverable']);
  const setId = set?.setId;
  const restored = await server.admin.ask<RestoredSet>('restore-set', { setId });
  assert.deepEqual([restored.volumes.map(({ device }) => device), restored.inRecycleBin], [['/dev/xvda'], [data]]);
  for (const { SnapshotId = '' } of made) if (SnapshotId !== data) await remove(SnapshotId);
  await assert.rejects(server.admin.ask('restore-set', { setId }), { message: new RegExp(`Recycle Bin.*${data}`) });
  for (const { SnapshotId = '' } of made) await restore(SnapshotId);
  assert.equal((await server.admin.ask<RestoredSet>('restore-set', { setId })).volumes.length, 2);
});

test('what is in the bin is its owner’s alone, and with whom it was shared is remembered', async (t) => {
  await rule(t, {});
  const id = await oneSnapshot();
  const other = await server.admin.ask<NewUser>('create-user', { accountId: '000000000002', userName: 'other' });
  const ec2 = new EC2Client({ region: 'us-east-1', endpoint: server.apiUrl, credentials: other, maxAttempts: 1 });
  t.after(() => ec2.destroy());
  const share = { SnapshotId: id, CreateVolumePermission: { Add: [{ UserId: '000000000002' }] } };
  await server.ec2.send(new ModifySnapshotAttributeCommand(share));
  const describe = () => ec2.send(new DescribeSnapshotsCommand({ SnapshotIds: [id] }));
  await describe();
  await remove(id);
  await assert.rejects(describe(), NOT_FOUND);
  assert.deepEqual((await ec2.send(new ListSnapshotsInRecycleBinCommand({}))).Snapshots, []);
  await assert.rejects(ec2.send(new RestoreSnapshotFromRecycleBinCommand({ SnapshotId: id })), NOT_FOUND);
  assert.deepEqual((await rbin('POST', '/list-rules', { ResourceType: 'EBS_SNAPSHOT' }, other)).json.Rules, []);
  await restore(id);
  await describe();
  await remove(id);
});

test('the bin is told a page at a time; a question changes nothing', async (t) => {
  await rule(t, {});
  const before = (await bin()).length;
  const ids: string[] = [];
  for (let at = 0; at < 6; at += 1) ids.push(await deleted([]));
  const first = await server.ec2.send(new ListSnapshotsInRecycleBinCommand({ MaxResults: 5 }));
  assert.equal(first.Snapshots?.length, 5);
  let rest: SnapshotRecycleBinInfo[] = [];
  for (let token = first.NextToken; token !== undefined; ) {
    const page = await server.ec2.send(new ListSnapshotsInRecycleBinCommand({ NextToken: token, MaxResults: 5 }));
    rest = [...rest, ...(page.Snapshots ?? [])];
    token = page.NextToken;
  }
  const all = [...(first.Snapshots ?? []), ...rest].map(({ SnapshotId = '' }) => SnapshotId);
  assert.equal(new Set(all).size, before + 6);
  assert.ok(ids.every((id) => all.includes(id)));
  const DryRun = true;
  const dry = { name: 'DryRunOperation' };
  await assert.rejects(server.ec2.send(new ListSnapshotsInRecycleBinCommand({ DryRun })), dry);
  await assert.rejects(server.ec2.send(new RestoreSnapshotFromRecycleBinCommand({ SnapshotId: ids[0], DryRun })), dry);
  await assert.rejects(bin(newId('snap')), NOT_FOUND);
  assert.equal(await isInBin(ids[0]), true);
});

test('rules: made, shown, listed, changed, tagged and deleted', async (t) => {
  const Tags = [{ Key: 'team', Value: 'db' }];
  const made = await rule(t, { ...days(7), Description: 'a week', Tags });
  assert.match(made.Identifier, /^[0-9A-Za-z]{11}$/);
  assert.equal(made.RuleArn, `arn:aws:rbin:us-east-1:000000000001:rule/${made.Identifier}`);
  const path = `/rules/${made.Identifier}`;
  const { Tags: given, ...shown } = made as Rule & { Tags: object };
  assert.deepEqual(given, Tags);
  assert.deepEqual((await rbin('GET', path)).json, shown);
  assert.deepEqual(
    [made.LockState, made.Description, made.RetentionPeriod],
    ['unlocked', 'a week', { RetentionPeriodValue: 7, RetentionPeriodUnit: 'DAYS' }],
  );

  const list = async (asked: object) => {
    const { status, json } = await rbin('POST', '/list-rules', { ResourceType: 'EBS_SNAPSHOT', ...asked });
    assert.equal(status, 200, JSON.stringify(json));
    return { ids: (json.Rules as Rule[]).map((each) => each.Identifier), token: json.NextToken };
  };
  const gold = { ResourceTagKey: 'tier', ResourceTagValue: 'gold' };
  const tagged = await rule(t, { ResourceTags: [gold] });
  assert.deepEqual((await list({})).ids.sort(), [made.Identifier, tagged.Identifier].sort());
  assert.deepEqual((await list({ ResourceTags: [gold] })).ids, [tagged.Identifier]);
  assert.deepEqual((await list({ ResourceTags: [{ ResourceTagKey: 'tier' }] })).ids, []);
  assert.deepEqual((await list({ LockState: 'locked' })).ids, []);
  assert.deepEqual((await list({ ResourceType: 'EC2_IMAGE' })).ids, []);
  const first = await list({ MaxResults: 1 });
  const second = await list({ MaxResults: 1, NextToken: first.token });
  assert.equal(second.token, undefined);
  assert.deepEqual([...first.ids, ...second.ids].sort(), [made.Identifier, tagged.Identifier].sort());
  const wrong = await rbin('POST', '/list-rules', { ResourceType: 'EBS_SNAPSHOT', NextToken: 'bm8=' });
  assert.deepEqual([wrong.code, wrong.json.Reason], ['ValidationException', 'INVALID_PAGE_TOKEN']);

  const updated = await rbin('PATCH', path, { ...days(8), ExcludeResourceTags: [gold] });
  assert.deepEqual(
    [updated.status, updated.json.RetentionPeriod?.RetentionPeriodValue, updated.json.Description],
    [200, 8, 'a week'],
  );
  assert.deepEqual((await list({ ExcludeResourceTags: [gold] })).ids, [made.Identifier]);

  const arn = `/tags/${encodeURIComponent(made.RuleArn)}`;
  assert.equal((await rbin('POST', arn, { Tags: [{ Key: 'a b', Value: '' }] })).status, 201);
  const tags = async () => (await rbin('GET', arn)).json.Tags;
  assert.deepEqual(await tags(), [...Tags, { Key: 'a b', Value: '' }]);
  const untag = {
    ...rest('DELETE', arn),
    query: [
      ['tagKeys', 'a b'],
      ['tagKeys', 'team'],
    ] as [string, string][],
  };
  const signing = { service: 'rbin', credentials: readCredentials(server.dataDir) };
  assert.equal((await send(server.apiUrl, await sign(server.apiUrl, untag, signing))).status, 204);
  assert.deepEqual(await tags(), []);

  assert.deepEqual(await rbin('DELETE', path), { status: 204, code: '', json: {} });
  for (const [method, at, body] of [
    ['GET', path, undefined],
    ['DELETE', path, undefined],
    ['PATCH', path, days(1)],
    ['PATCH', `${path}/unlock`, undefined],
    ['GET', arn, undefined],
  ] as const) {
    const { status, code, json } = await rbin(method, at, body);
    assert.deepEqual(
      [status, code, json.Reason],
      [404, 'ResourceNotFoundException', 'RULE_NOT_FOUND'],
      `${method} ${at}`,
    );
  }
});

test('a locked rule is changed by nobody until it was unlocked and its delay is over', async () => {
  const delay = (UnlockDelayValue: number) => ({
    LockConfiguration: { UnlockDelay: { UnlockDelayValue, UnlockDelayUnit: 'DAYS' } },
  });
  const made = await rbin('POST', '/rules', { ResourceType: 'EBS_SNAPSHOT', ...days(1), ...delay(7) });
  assert.deepEqual([made.status, made.json.LockState], [201, 'locked']);
  const path = `/rules/${made.json.Identifier}`;
  const refused = async (method: string, at: string, body?: object) => {
    const { status, code, json } = await rbin(method, at, body);
    assert.deepEqual([status, code, json.Reason], [409, 'ConflictException', 'INVALID_RULE_STATE']);
  };
  await refused('DELETE', path);
  await refused('PATCH', path, days(2));
  assert.equal((await rbin('PATCH', `${path}/lock`, delay(9))).json.LockState, 'locked');
  await refused('PATCH', `${path}/lock`, delay(8));
  const unlocking = await rbin('PATCH', `${path}/unlock`);
  assert.equal(unlocking.json.LockState, 'pending_unlock');
  assert.ok(Math.abs((unlocking.json.LockEndTime ?? 0) * 1000 - Date.now() - 9 * DAY) < 60_000);
  await refused('DELETE', path);
  await refused('PATCH', path, days(2));
  await refused('PATCH', `${path}/unlock`);
  const again = await rbin('PATCH', `${path}/lock`, delay(9));
  assert.deepEqual([again.json.LockState, again.json.LockEndTime], ['locked', undefined]);
  await rbin('PATCH', `${path}/unlock`);

  const { stop, dataDir } = server;
  await stop();
  const catalog = new DatabaseSync(`${dataDir}/catalog.sqlite`);
  catalog
    .prepare('update retention_rules set unlocks_at = ? where rule_id = ?')
    .run(new Date(Date.now() - 1000).toISOString(), made.json.Identifier ?? '');
  catalog.close();
  server = await startTestServer(file, { dataDir });
  assert.equal((await rbin('GET', path)).json.LockState, 'unlocked');
  assert.equal((await rbin('PATCH', path, days(2))).status, 200);
  assert.equal((await rbin('DELETE', path)).status, 204);
});

const SNAPSHOTS = { ResourceType: 'EBS_SNAPSHOT', ...days(1) };
const TAGS = [{ ResourceTagKey: 'a' }];
const WRONG: [string, object | string][] = [
  ['no kind', days(1)],
  ['another kind', { ...SNAPSHOTS, ResourceType: 'EC2_IMAGE' }],
  ['no period', { ResourceType: 'EBS_SNAPSHOT' }],
  ['no day', { ...SNAPSHOTS, ...days(0) }],
  ['more than a year', { ...SNAPSHOTS, ...days(366) }],
  ['another unit', { ...SNAPSHOTS, RetentionPeriod: { RetentionPeriodValue: 1, RetentionPeriodUnit: 'HOURS' } }],
  ['a description of two lines', { ...SNAPSHOTS, Description: 'a\nb' }],
  ['tags of both kinds', { ...SNAPSHOTS, ResourceTags: TAGS, ExcludeResourceTags: TAGS }],
  ['six excluded tags', { ...SNAPSHOTS, ExcludeResourceTags: Array.from({ length: 6 }, () => TAGS[0]) }],
  ['a tag without a key', { ...SNAPSHOTS, ResourceTags: [{ ResourceTagValue: 'a' }] }],
  ['a reserved tag', { ...SNAPSHOTS, Tags: [{ Key: 'aws:a', Value: '' }] }],
  ['a tag twice', { ...SNAPSHOTS, Tags: [SAME(), SAME()] }],
  ['an unknown member', { ...SNAPSHOTS, Colour: 'red' }],
  ['a lock with tags', { ...SNAPSHOTS, ResourceTags: TAGS, ...LOCK(7) }],
  ['a lock that is short', { ...SNAPSHOTS, ...LOCK(6) }],
];
function SAME(): object {
  return { Key: 'a', Value: '' };
}
function LOCK(UnlockDelayValue: number): object {
  return { LockConfiguration: { UnlockDelay: { UnlockDelayValue, UnlockDelayUnit: 'DAYS' } } };
}
for (const [what, wrong] of WRONG) {
  test(`a rule is refused: ${what}`, async () => {
    const { status, code, json } = await rbin('POST', '/rules', wrong as object);
    assert.deepEqual([status, code, json.Reason], [400, 'ValidationException', 'INVALID_PARAMETER_VALUE']);
  });
}

test('what is no operation, no rule’s name, no JSON', async () => {
  assert.equal((await rbin('GET', '/rules')).status, 404);
  assert.equal((await rbin('GET', '/rules/short')).code, 'ValidationException');
  assert.equal((await rbin('GET', '/tags/nothing')).code, 'ValidationException');
  const request = rest('POST', '/rules', {}, '{');
  const signing = { service: 'rbin', credentials: readCredentials(server.dataDir) };
  assert.equal((await send(server.apiUrl, await sign(server.apiUrl, request, signing))).code, 'ValidationException');
});

test('policies say who may make rules, of which tags, and who may take what back', async (t) => {
  const allow = (Action: string, more: object = {}) => ({ Effect: 'Allow', Action, Resource: '*', ...more });
  const policy = {
    Version: '2012-10-17',
    Statement: [
      allow('rbin:CreateRule', { Condition: { StringEquals: { 'rbin:Request/ResourceType': 'EBS_SNAPSHOT' } } }),
      allow('rbin:GetRule', { Condition: { StringEquals: { 'aws:ResourceTag/team': 'db' } } }),
      allow('ec2:ListSnapshotsInRecycleBin'),
    ],
  };
  const asked = { accountId: '000000000001', userName: 'binner', policy: JSON.stringify(policy) };
  const credentials = await server.admin.ask<NewUser>('create-user', asked);
  const ec2 = new EC2Client({ region: 'us-east-1', endpoint: server.apiUrl, credentials, maxAttempts: 1 });
  t.after(() => ec2.destroy());
  const made = await rbin('POST', '/rules', SNAPSHOTS, credentials);
  assert.equal(made.status, 201);
  const path = `/rules/${made.json.Identifier}`;
  t.after(() => rbin('DELETE', path));
  const denied = async (method: string, at: string, body?: object) => {
    const { status, code, json } = await rbin(method, at, body, credentials);
    assert.deepEqual([status, code], [403, 'AccessDeniedException']);
    assert.match(String(json.Message), /rbin:/);
  };
  // Tags on what is made are a right of their own.
  await denied('POST', '/rules', { ...SNAPSHOTS, Tags: [{ Key: 'team', Value: 'db' }] });
  await denied('DELETE', path);
  await denied('GET', path);
  await rbin('POST', `/tags/${encodeURIComponent(made.json.RuleArn ?? '')}`, { Tags: [{ Key: 'team', Value: 'db' }] });
  assert.equal((await rbin('GET', path, undefined, credentials)).status, 200);
  const id = await deleted([]);
  assert.ok(
    (await ec2.send(new ListSnapshotsInRecycleBinCommand({}))).Snapshots?.some((each) => each.SnapshotId === id),
  );
  await assert.rejects(ec2.send(new RestoreSnapshotFromRecycleBinCommand({ SnapshotId: id })), {
    name: 'UnauthorizedOperation',
  });
});

test('there can be 250 rules in a region', async (t) => {
  const there = ((await rbin('POST', '/list-rules', { ResourceType: 'EBS_SNAPSHOT' })).json.Rules as Rule[]).length;
  for (let at = there; at < 250; at += 1) await rule(t, { ResourceTags: TAGS });
  const { status, code, json } = await rbin('POST', '/rules', SNAPSHOTS);
  assert.deepEqual([status, code, json.Reason], [402, 'ServiceQuotaExceededException', 'SERVICE_QUOTA_EXCEEDED']);
});
