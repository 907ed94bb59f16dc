import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, test } from 'node:test';
import { CreateTagsCommand, RegisterImageCommand } from '@aws-sdk/client-ec2';
import type { SetReport } from '../../src/admin/sets.ts';
import type { NewUser } from '../../src/admin/users.ts';
import type { KeyReport } from '../../src/keys/key-service.ts';
import { FileCleanup } from '../support/cleanup.ts';
import { createSnapshots, EMPTY_IMAGE, ended, launchInstance, type TestInstance } from '../support/instances.ts';
import { readCredentials, startTestServer, type TestServer } from '../support/server.ts';
import { type Answer, type Credentials, form, type Request, rest, send, sign } from '../support/signed-request.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';

/**
 * Attempts of someone who has a key to do what is not his to do, each beside its twin: the same, or next to the same, by
 * one who may. A twin that would change something asks with DryRun, and is told that it would have been let through.
 */
let server: TestServer;
let admin: Credentials;
/** The administrator of another account. */
let stranger: Credentials;
let instance: TestInstance;
let snapshot: string;
let image: string;
let ownKey: string;
let set: string;
/** A rule of the recycle bin, of snapshots that there are none of. */
let rule: string;
const file = new FileCleanup();

async function newUser(accountId: string, userName: string, policy?: object): Promise<Credentials> {
  const document = policy === undefined ? {} : { policy: JSON.stringify(policy) };
  return server.admin.ask<NewUser>('create-user', { accountId, userName, ...document });
}

before(async () => {
  server = await startTestServer(file, { flags: ['--archive-store', `file://${temporaryDirectory(file)}`] });
  admin = readCredentials(server.dataDir);
  stranger = await newUser('000000000002', 'stranger');
  instance = await launchInstance(server.ec2, [1, 2]);
  const client = await server.connect(instance.volumes[0]);
  await client.write(0, randomBytes(1_200_000));
  await client.close();
  await server.ec2.send(
    new CreateTagsCommand({
      Resources: [instance.instanceId, instance.volumes[0]],
      Tags: [{ Key: 'env', Value: 'test' }],
    }),
  );
  const made = await ended(server.ec2, await createSnapshots(server.ec2, instance.instanceId));
  snapshot = made.find((each) => each.VolumeId === instance.volumes[0])?.SnapshotId ?? '';
  set = (await server.admin.ask<{ sets: SetReport[] }>('sets')).sets[0].setId;
  const registered = await server.ec2.send(
    new RegisterImageCommand({
      Name: 'mine',
      RootDeviceName: '/dev/xvda',
      BlockDeviceMappings: [{ DeviceName: '/dev/xvda', Ebs: { SnapshotId: made[0].SnapshotId } }],
    }),
  );
  image = registered.ImageId ?? '';
  ownKey = (await server.admin.ask<KeyReport>('create-key', {})).arn;
  const ruled = await ask(
    admin,
    rest('POST', '/rules', {}, newRule({ ResourceTags: [{ ResourceTagKey: 'none' }] })),
    'rbin',
  );
  rule = (JSON.parse(ruled.body) as { Identifier: string }).Identifier;
});
after(async () => {
  await server.stop();
  file.run();
});

async function ask(credentials: Credentials, request: Request, service = 'ec2'): Promise<Answer> {
  return send(server.apiUrl, await sign(server.apiUrl, request, { credentials, service }));
}

const isAllowed = ({ status, code }: Answer): boolean => status === 200 || status === 201 || code === 'DryRunOperation';
const DRY = { DryRun: 'true' };
/** A list of ids, as the Query protocol writes it. */
const listed = (name: string, ...values: string[]): Record<string, string> =>
  Object.fromEntries(values.map((value, index) => [`${name}.${index + 1}`, value]));

const newRule = (more: object = {}): string =>
  JSON.stringify({
    ResourceType: 'EBS_SNAPSHOT',
    RetentionPeriod: { RetentionPeriodValue: 1, RetentionPeriodUnit: 'DAYS' },
    ...more,
  });
const ruleArn = (account = '000000000001'): string =>
  encodeURIComponent(`arn:aws:rbin:us-east-1:${account}:rule/${rule}`);

type Foreign = { what: string; code: string; request: () => Request; service?: string; twin?: () => Request };

const volume = (): string => instance.volumes[0];
const dryTwin = (action: string, parameters: () => Record<string, string>): Pick<Foreign, 'request' | 'twin'> => ({
  request: () => form(action, parameters()),
  twin: () => form(action, { ...parameters(), ...DRY }),
});

/** By the administrator of another account; the twin is by the owner. */
const FOREIGN: Foreign[] = [
  {
    what: 'DescribeVolumes by id',
    code: 'InvalidVolume.NotFound',
    request: () => form('DescribeVolumes', listed('VolumeId', volume())),
  },
  {
    what: 'DescribeInstances by id',
    code: 'InvalidInstanceID.NotFound',
    request: () => form('DescribeInstances', listed('InstanceId', instance.instanceId)),
  },
  {
    what: 'DescribeSnapshots by id',
    code: 'InvalidSnapshot.NotFound',
    request: () => form('DescribeSnapshots', listed('SnapshotId', snapshot)),
  },
  {
    what: 'DescribeImages by id',
    code: 'InvalidAMIID.NotFound',
    request: () => form('DescribeImages', listed('ImageId', image)),
  },
  {
    what: 'DescribeVolumeStatus by id',
    code: 'InvalidVolume.NotFound',
    request: () => form('DescribeVolumeStatus', listed('VolumeId', volume())),
  },
  {
    what: 'DescribeInstanceStatus by id',
    code: 'InvalidInstanceID.NotFound',
    request: () => form('DescribeInstanceStatus', listed('InstanceId', instance.instanceId)),
  },
  {
    what: 'DescribeVolumeAttribute',
    code: 'InvalidVolume.NotFound',
    request: () => form('DescribeVolumeAttribute', { VolumeId: volume(), Attribute: 'autoEnableIO' }),
  },
  {
    what: 'DescribeInstanceAttribute',
    code: 'InvalidInstanceID.NotFound',
    request: () => form('DescribeInstanceAttribute', { InstanceId: instance.instanceId, Attribute: 'instanceType' }),
  },
  {
    what: 'DescribeSnapshotAttribute',
    code: 'InvalidSnapshot.NotFound',
    request: () => form('DescribeSnapshotAttribute', { SnapshotId: snapshot, Attribute: 'createVolumePermission' }),
  },
  {
    what: 'CreateSnapshots of an instance',
    code: 'InvalidInstanceID.NotFound',
    ...dryTwin('CreateSnapshots', () => ({ 'InstanceSpecification.InstanceId': instance.instanceId })),
  },
  {
    what: 'CreateSnapshot of a volume',
    code: 'InvalidVolume.NotFound',
    ...dryTwin('CreateSnapshot', () => ({ VolumeId: volume() })),
  },
  {
    what: 'DeleteSnapshot',
    code: 'InvalidSnapshot.NotFound',
    ...dryTwin('DeleteSnapshot', () => ({ SnapshotId: snapshot })),
  },
  {
    what: 'LockSnapshot',
    code: 'InvalidSnapshot.NotFound',
    ...dryTwin('LockSnapshot', () => ({ SnapshotId: snapshot, LockMode: 'compliance', LockDuration: '1' })),
  },
  {
    what: 'UnlockSnapshot',
    code: 'InvalidSnapshot.NotFound',
    ...dryTwin('UnlockSnapshot', () => ({ SnapshotId: snapshot })),
  },
  {
    what: 'CopySnapshot',
    code: 'InvalidSnapshot.NotFound',
    ...dryTwin('CopySnapshot', () => ({ SourceRegion: 'us-east-1', SourceSnapshotId: snapshot })),
  },
  {
    what: 'sharing it with oneself',
    code: 'InvalidSnapshot.NotFound',
    ...dryTwin('ModifySnapshotAttribute', () => ({
      SnapshotId: snapshot,
      OperationType: 'add',
      'UserId.1': '000000000002',
    })),
  },
  {
    what: 'ResetSnapshotAttribute',
    code: 'InvalidSnapshot.NotFound',
    ...dryTwin('ResetSnapshotAttribute', () => ({ SnapshotId: snapshot, Attribute: 'createVolumePermission' })),
  },
  {
    what: 'CreateVolume from a snapshot',
    code: 'InvalidSnapshot.NotFound',
    ...dryTwin('CreateVolume', () => ({ AvailabilityZone: 'us-east-1a', SnapshotId: snapshot })),
  },
  {
    what: "CreateVolume under another account's key",
    code: 'InvalidKMSKey.NotFound',
    ...dryTwin('CreateVolume', () => ({
      AvailabilityZone: 'us-east-1a',
      Size: '1',
      Encrypted: 'true',
      KmsKeyId: ownKey,
    })),
  },
  {
    what: 'AttachVolume',
    code: 'InvalidVolume.NotFound',
    ...dryTwin('AttachVolume', () => ({ VolumeId: volume(), InstanceId: instance.instanceId, Device: '/dev/sdz' })),
  },
  { what: 'DetachVolume', code: 'InvalidVolume.NotFound', ...dryTwin('DetachVolume', () => ({ VolumeId: volume() })) },
  { what: 'DeleteVolume', code: 'InvalidVolume.NotFound', ...dryTwin('DeleteVolume', () => ({ VolumeId: volume() })) },
  {
    what: 'ModifyVolume',
    code: 'InvalidVolume.NotFound',
    ...dryTwin('ModifyVolume', () => ({ VolumeId: volume(), Size: '3' })),
  },
  {
    what: 'ModifyVolumeAttribute',
    code: 'InvalidVolume.NotFound',
    ...dryTwin('ModifyVolumeAttribute', () => ({ VolumeId: volume(), 'AutoEnableIO.Value': 'true' })),
  },
  {
    what: 'CreateTags',
    code: 'InvalidVolume.NotFound',
    ...dryTwin('CreateTags', () => ({ 'ResourceId.1': volume(), 'Tag.1.Key': 'k', 'Tag.1.Value': 'v' })),
  },
  {
    what: 'DeleteTags',
    code: 'InvalidInstanceID.NotFound',
    ...dryTwin('DeleteTags', () => ({ 'ResourceId.1': instance.instanceId, 'Tag.1.Key': 'env' })),
  },
  {
    what: 'StopInstances',
    code: 'InvalidInstanceID.NotFound',
    ...dryTwin('StopInstances', () => listed('InstanceId', instance.instanceId)),
  },
  {
    what: 'StartInstances',
    code: 'InvalidInstanceID.NotFound',
    ...dryTwin('StartInstances', () => listed('InstanceId', instance.instanceId)),
  },
  {
    what: 'RebootInstances',
    code: 'InvalidInstanceID.NotFound',
    ...dryTwin('RebootInstances', () => listed('InstanceId', instance.instanceId)),
  },
  {
    what: 'TerminateInstances',
    code: 'InvalidInstanceID.NotFound',
    ...dryTwin('TerminateInstances', () => listed('InstanceId', instance.instanceId)),
  },
  {
    what: 'ModifyInstanceAttribute',
    code: 'InvalidInstanceID.NotFound',
    ...dryTwin('ModifyInstanceAttribute', () => ({
      InstanceId: instance.instanceId,
      'InstanceType.Value': 't3.micro',
    })),
  },
  {
    what: 'CreateReplaceRootVolumeTask',
    code: 'InvalidInstanceID.NotFound',
    ...dryTwin('CreateReplaceRootVolumeTask', () => ({ InstanceId: instance.instanceId })),
  },
  {
    what: 'CreateImage',
    code: 'InvalidInstanceID.NotFound',
    ...dryTwin('CreateImage', () => ({ InstanceId: instance.instanceId, Name: 'theirs' })),
  },
  {
    what: 'RegisterImage of a snapshot',
    code: 'InvalidSnapshot.NotFound',
    ...dryTwin('RegisterImage', () => ({
      Name: 'theirs',
      RootDeviceName: '/dev/xvda',
      'BlockDeviceMapping.1.DeviceName': '/dev/xvda',
      'BlockDeviceMapping.1.Ebs.SnapshotId': snapshot,
    })),
  },
  {
    what: 'archiving a snapshot',
    code: 'InvalidSnapshot.NotFound',
    ...dryTwin('ModifySnapshotTier', () => ({ SnapshotId: snapshot, StorageTier: 'archive' })),
  },
  {
    what: 'taking a snapshot from the archive',
    code: 'InvalidSnapshot.NotFound',
    ...dryTwin('RestoreSnapshotTier', () => ({ SnapshotId: snapshot, PermanentRestore: 'true' })),
  },
  { what: 'DeregisterImage', code: 'InvalidAMIID.NotFound', ...dryTwin('DeregisterImage', () => ({ ImageId: image })) },
  {
    what: 'RunInstances of a private image',
    code: 'InvalidAMIID.NotFound',
    ...dryTwin('RunInstances', () => ({ ImageId: image, MinCount: '1', MaxCount: '1' })),
  },
  {
    what: 'RunInstances with a snapshot mapped',
    code: 'InvalidSnapshot.NotFound',
    ...dryTwin('RunInstances', () => ({
      ImageId: EMPTY_IMAGE,
      MinCount: '1',
      MaxCount: '1',
      'BlockDeviceMapping.1.DeviceName': '/dev/sdf',
      'BlockDeviceMapping.1.Ebs.SnapshotId': snapshot,
    })),
  },
  {
    what: 'ListSnapshotBlocks',
    code: 'ResourceNotFoundException',
    service: 'ebs',
    request: () => rest('GET', `/snapshots/${snapshot}/blocks`),
  },
  {
    what: 'ListChangedBlocks',
    code: 'ResourceNotFoundException',
    service: 'ebs',
    request: () => rest('GET', `/snapshots/${snapshot}/changedblocks`),
  },
  {
    what: 'StartSnapshot on top of it',
    code: 'ResourceNotFoundException',
    service: 'ebs',
    request: () => rest('POST', '/snapshots', {}, JSON.stringify({ VolumeSize: 1, ParentSnapshotId: snapshot })),
  },
  ...(
    [
      ['seeing a rule of the recycle bin', () => rest('GET', `/rules/${rule}`)],
      ['changing one', () => rest('PATCH', `/rules/${rule}`, {}, '{"Description":"theirs"}')],
      ['seeing its tags', () => rest('GET', `/tags/${ruleArn()}`)],
    ] as const
  ).map(([what, request]) => ({ what, code: 'ResourceNotFoundException', service: 'rbin', request })),
  {
    what: 'restore-set',
    code: 'InvalidSet.NotFound',
    service: 'cleancut',
    request: () => rest('POST', '/cleancut/restore-set', {}, JSON.stringify({ setId: set })),
  },
  {
    what: 'disabling a key',
    code: 'InvalidKMSKey.NotFound',
    service: 'cleancut',
    request: () => rest('POST', '/cleancut/rotate-key', {}, JSON.stringify({ key: ownKey })),
  },
  {
    what: 'making a user in another account',
    code: 'UnauthorizedOperation',
    service: 'cleancut',
    request: () =>
      rest('POST', '/cleancut/create-user', {}, JSON.stringify({ accountId: '000000000001', userName: 'planted' })),
  },
  {
    what: 'rotating the administrator',
    code: 'UnauthorizedOperation',
    service: 'cleancut',
    request: () => rest('POST', '/cleancut/list-users', {}, JSON.stringify({ accountId: '000000000001' })),
  },
  {
    what: 'collecting garbage',
    code: 'UnauthorizedOperation',
    service: 'cleancut',
    request: () => rest('POST', '/cleancut/collect', {}, '{"remove":false}'),
  },
  {
    what: "the server's status",
    code: 'UnauthorizedOperation',
    service: 'cleancut',
    request: () => rest('POST', '/cleancut/status', {}, '{}'),
  },
  {
    what: 'an import, which names any manifest it likes',
    code: 'UnauthorizedOperation',
    service: 'cleancut',
    request: () => rest('POST', '/cleancut/begin-import', {}, '{"sizeGiB":1}'),
  },
];

for (const { what, code, request, service = 'ec2', twin = request } of FOREIGN) {
  test(`another account: ${what} is refused (${code}); its owner may`, async () => {
    const refused = await ask(stranger, request(), service);
    assert.equal(refused.code, code, refused.body);
    const allowed = await ask(admin, twin(), service);
    assert.ok(isAllowed(allowed), allowed.body);
  });
}

test("another account's lists are empty, whatever the filters", async () => {
  for (const [action, parameters] of [
    ['DescribeVolumes', {}],
    ['DescribeInstances', {}],
    ['DescribeTags', {}],
    ['DescribeSnapshots', { 'Filter.1.Name': 'volume-id', 'Filter.1.Value.1': '*' }],
    ['DescribeSnapshots', { 'Owner.1': '000000000001' }],
    ['DescribeVolumesModifications', {}],
    ['DescribeSnapshotTierStatus', {}],
    ['ListSnapshotsInRecycleBin', {}],
  ] as const) {
    const answer = await ask(stranger, form(action, parameters));
    assert.ok(answer.status === 200 && !answer.body.includes('<item>'), answer.body);
    assert.ok(!answer.body.includes(instance.instanceId));
  }
  assert.ok(!(await ask(stranger, form('DescribeImages'))).body.includes(image));
});

const ALL = { Effect: 'Allow', Action: '*', Resource: '*' };
const policy = (...Statement: object[]): object => ({ Version: '2012-10-17', Statement });
const may = (Action: string | string[], more: object = {}): object => ({
  Effect: 'Allow',
  Action,
  Resource: '*',
  ...more,
});
const mayNot = (Action: string | string[], more: object = {}): object => ({ ...may(Action, more), Effect: 'Deny' });
const when = (Condition: object): object => ({ Condition });
const cut =
  (more: Record<string, string> = {}): (() => Request) =>
  () =>
    form('CreateSnapshots', { 'InstanceSpecification.InstanceId': instance.instanceId, ...DRY, ...more });
const tagged = (key: string, value: string): Record<string, string> => ({
  'TagSpecification.1.ResourceType': 'snapshot',
  'TagSpecification.1.Tag.1.Key': key,
  'TagSpecification.1.Tag.1.Value': value,
});
const create =
  (more: Record<string, string>): (() => Request) =>
  () =>
    form('CreateVolume', { AvailabilityZone: 'us-east-1a', Size: '10', ...DRY, ...more });
const arn = (type: string, id = '*'): string =>
  `arn:aws:ec2:us-east-1:${type === 'snapshot' || type === 'image' ? '' : '000000000001'}:${type}/${id}`;

type Denied = {
  what: string;
  /** Made when the test runs: ids are known then. */
  policy: () => object;
  denied: () => Request;
  allowed: () => Request;
  service?: string;
  code?: string;
};

/** By a user of the account itself, whose policy lets through just the second of two requests. */
const DENIED: Denied[] = [
  {
    what: 'nothing allows it',
    policy: () => policy(may('ec2:Describe*')),
    denied: cut(),
    allowed: () => form('DescribeVolumes'),
  },
  {
    what: 'reading is denied where writing is allowed',
    policy: () => policy(may('ec2:CreateSnapshots')),
    denied: () => form('DescribeSnapshots'),
    allowed: cut(),
  },
  {
    what: 'an explicit deny wins over everything',
    policy: () => policy(ALL, mayNot('ec2:DeleteSnapshot')),
    denied: () => form('DeleteSnapshot', { SnapshotId: snapshot, ...DRY }),
    allowed: cut(),
  },
  {
    what: 'CreateSnapshot does not stand for CreateSnapshots',
    policy: () => policy(may('ec2:CreateSnapshot')),
    denied: cut(),
    allowed: () => form('CreateSnapshot', { VolumeId: volume(), ...DRY }),
  },
  {
    what: 'the instance is another',
    policy: () =>
      policy(
        may('ec2:CreateSnapshots', {
          Resource: [arn('instance', 'i-0123456789abcdef0'), arn('volume'), arn('snapshot')],
        }),
        may('ec2:CreateSnapshot'),
      ),
    denied: cut(),
    allowed: () => form('CreateSnapshot', { VolumeId: volume(), ...DRY }),
  },
  {
    what: 'one volume of the set may not be cut',
    policy: () => policy(ALL, mayNot('ec2:CreateSnapshots', { Resource: arn('volume', instance.volumes[1]) })),
    denied: cut(),
    allowed: () => cut({ 'InstanceSpecification.ExcludeDataVolumeId.1': instance.volumes[1] })(),
  },
  {
    what: 'the boot volume may not be cut',
    policy: () => policy(ALL, mayNot('ec2:CreateSnapshots', { Resource: arn('volume', instance.root) })),
    denied: cut(),
    allowed: () => cut({ 'InstanceSpecification.ExcludeBootVolume': 'true' })(),
  },
  {
    what: 'the snapshots to be are left out of the policy',
    policy: () =>
      policy(may('ec2:CreateSnapshots', { Resource: [arn('instance'), arn('volume')] }), may('ec2:CreateVolume')),
    denied: cut(),
    allowed: create({}),
  },
  {
    what: 'instances without the tag',
    policy: () =>
      policy(
        may('ec2:*', { Resource: [arn('volume'), arn('snapshot')] }),
        may('ec2:*', { Resource: arn('instance'), ...when({ StringEquals: { 'ec2:ResourceTag/env': 'production' } }) }),
      ),
    denied: cut(),
    allowed: create({}),
  },
  {
    what: 'instances with the tag',
    policy: () => policy(ALL, mayNot('ec2:StopInstances', when({ StringEquals: { 'aws:ResourceTag/env': 'test' } }))),
    denied: () => form('StopInstances', { ...listed('InstanceId', instance.instanceId), ...DRY }),
    allowed: cut(),
  },
  {
    what: 'a tag that must come with the request',
    policy: () =>
      policy(
        may('ec2:*', { Resource: [arn('instance'), arn('volume')] }),
        may('ec2:*', { Resource: arn('snapshot'), ...when({ StringEquals: { 'aws:RequestTag/team': 'storage' } }) }),
      ),
    denied: cut(tagged('team', 'other')),
    allowed: cut(tagged('team', 'storage')),
  },
  {
    what: 'no tag at all where one must come',
    policy: () =>
      policy(
        may('ec2:*', { Resource: [arn('instance'), arn('volume')] }),
        may('ec2:*', { Resource: arn('snapshot'), ...when({ Null: { 'aws:TagKeys': 'false' } }) }),
      ),
    denied: cut(),
    allowed: cut(tagged('any', 'x')),
  },
  {
    what: 'tag keys other than those allowed',
    policy: () => policy(may('ec2:*', when({ 'ForAllValues:StringEquals': { 'aws:TagKeys': ['team'] } }))),
    denied: cut(tagged('cost', 'x')),
    allowed: cut(tagged('team', 'x')),
  },
  {
    what: 'tags on what is made, without the right to tag',
    policy: () => policy(may('ec2:CreateSnapshots')),
    denied: cut(tagged('team', 'x')),
    allowed: cut(),
  },
  {
    what: 'tagging is allowed at another creation only',
    policy: () =>
      policy(
        may('ec2:CreateSnapshots'),
        may('ec2:CreateVolume'),
        may('ec2:CreateTags', when({ StringEquals: { 'ec2:CreateAction': 'CreateVolume' } })),
      ),
    denied: cut(tagged('team', 'x')),
    allowed: create({
      'TagSpecification.1.ResourceType': 'volume',
      'TagSpecification.1.Tag.1.Key': 'team',
      'TagSpecification.1.Tag.1.Value': 'x',
    }),
  },
  {
    what: 'tagging what exists, where only tagging at creation is allowed',
    policy: () =>
      policy(
        may('ec2:CreateSnapshots'),
        may('ec2:CreateTags', when({ StringEquals: { 'ec2:CreateAction': 'CreateSnapshots' } })),
      ),
    denied: () => form('CreateTags', { 'ResourceId.1': snapshot, 'Tag.1.Key': 'k', ...DRY }),
    allowed: cut(tagged('team', 'x')),
  },
  {
    what: 'taking away a tag that is protected',
    policy: () => policy(ALL, mayNot('ec2:DeleteTags', when({ 'ForAnyValue:StringEquals': { 'aws:TagKeys': 'env' } }))),
    denied: () => form('DeleteTags', { 'ResourceId.1': volume(), 'Tag.1.Key': 'env', ...DRY }),
    allowed: () => form('DeleteTags', { 'ResourceId.1': volume(), 'Tag.1.Key': 'other', ...DRY }),
  },
  {
    what: 'volumes that are too large',
    policy: () => policy(may('ec2:CreateVolume', when({ NumericLessThanEquals: { 'ec2:VolumeSize': '10' } }))),
    denied: create({ Size: '11' }),
    allowed: create({}),
  },
  {
    what: 'volumes of a dear type',
    policy: () => policy(may('ec2:CreateVolume', when({ StringNotEquals: { 'ec2:VolumeType': ['io1', 'io2'] } }))),
    denied: create({ VolumeType: 'io2', Iops: '100' }),
    allowed: create({ VolumeType: 'gp3' }),
  },
  {
    what: 'volumes that are not encrypted',
    policy: () => policy(may('ec2:CreateVolume', when({ Bool: { 'ec2:Encrypted': 'true' } }))),
    denied: create({}),
    allowed: create({ Encrypted: 'true' }),
  },
  {
    what: 'volumes of any snapshot but one',
    policy: () =>
      policy(
        may('ec2:CreateVolume', { Resource: arn('snapshot', snapshot) }),
        may('ec2:CreateVolume', {
          Resource: arn('volume'),
          ...when({ ArnEquals: { 'ec2:ParentSnapshot': arn('snapshot', snapshot) } }),
        }),
      ),
    denied: create({}),
    allowed: () => create({ SnapshotId: snapshot })(),
  },
  {
    what: 'snapshots of any volume but one',
    policy: () =>
      policy(
        may('ec2:CreateSnapshot', { Resource: arn('volume') }),
        may('ec2:CreateSnapshot', {
          Resource: arn('snapshot'),
          ...when({ ArnEquals: { 'ec2:ParentVolume': arn('volume', volume()) } }),
        }),
      ),
    denied: () => form('CreateSnapshot', { VolumeId: instance.volumes[1], ...DRY }),
    allowed: () => form('CreateSnapshot', { VolumeId: volume(), ...DRY }),
  },
  {
    what: 'deleting what is of one volume',
    policy: () =>
      policy(ALL, mayNot('ec2:DeleteSnapshot', when({ ArnLike: { 'ec2:ParentVolume': arn('volume', volume()) } }))),
    denied: () => form('DeleteSnapshot', { SnapshotId: snapshot, ...DRY }),
    allowed: () => form('DeleteSnapshot', { SnapshotId: 'snap-0123456789abcdef0', ...DRY }),
  },
  {
    what: 'sharing with the world',
    policy: () =>
      policy(ALL, mayNot('ec2:ModifySnapshotAttribute', when({ StringEquals: { 'ec2:Add/group': 'all' } }))),
    denied: () =>
      form('ModifySnapshotAttribute', { SnapshotId: snapshot, OperationType: 'add', 'UserGroup.1': 'all', ...DRY }),
    allowed: () =>
      form('ModifySnapshotAttribute', {
        SnapshotId: snapshot,
        OperationType: 'add',
        'UserId.1': '000000000002',
        ...DRY,
      }),
  },
  {
    what: 'sharing with an account that is not on the list',
    policy: () =>
      policy(
        may('ec2:ModifySnapshotAttribute', when({ 'ForAllValues:StringEquals': { 'ec2:Add/userId': '000000000002' } })),
      ),
    denied: () =>
      form('ModifySnapshotAttribute', {
        SnapshotId: snapshot,
        OperationType: 'add',
        'UserId.1': '000000000003',
        ...DRY,
      }),
    allowed: () =>
      form('ModifySnapshotAttribute', {
        SnapshotId: snapshot,
        OperationType: 'add',
        'UserId.1': '000000000002',
        ...DRY,
      }),
  },
  {
    what: 'from another network',
    policy: () =>
      policy(
        may('ec2:DescribeVolumes', when({ IpAddress: { 'aws:SourceIp': '10.0.0.0/8' } })),
        may('ec2:DescribeSnapshots', when({ IpAddress: { 'aws:SourceIp': '127.0.0.0/8' } })),
      ),
    denied: () => form('DescribeVolumes'),
    allowed: () => form('DescribeSnapshots'),
  },
  {
    what: 'after the time is over',
    policy: () =>
      policy(
        may('ec2:DescribeVolumes', when({ DateLessThan: { 'aws:CurrentTime': '2020-01-01T00:00:00Z' } })),
        may('ec2:DescribeSnapshots', when({ DateGreaterThan: { 'aws:CurrentTime': '2020-01-01T00:00:00Z' } })),
      ),
    denied: () => form('DescribeVolumes'),
    allowed: () => form('DescribeSnapshots'),
  },
  {
    what: 'without TLS, where it must be',
    policy: () => policy(ALL, mayNot('ec2:DescribeVolumes', when({ Bool: { 'aws:SecureTransport': 'false' } }))),
    denied: () => form('DescribeVolumes'),
    allowed: () => form('DescribeSnapshots'),
  },
  {
    what: 'in another region',
    policy: () =>
      policy(
        may('ec2:DescribeVolumes', when({ StringEquals: { 'aws:RequestedRegion': 'eu-west-1' } })),
        may('ec2:DescribeSnapshots', when({ StringEquals: { 'aws:RequestedRegion': 'us-east-1' } })),
      ),
    denied: () => form('DescribeVolumes'),
    allowed: () => form('DescribeSnapshots'),
  },
  {
    what: 'attaching, with the right to the volume alone',
    policy: () => policy(may('ec2:AttachVolume', { Resource: arn('volume') }), may('ec2:DetachVolume')),
    denied: () =>
      form('AttachVolume', { VolumeId: volume(), InstanceId: instance.instanceId, Device: '/dev/sdz', ...DRY }),
    allowed: () => form('DetachVolume', { VolumeId: volume(), ...DRY }),
  },
  {
    what: 'launching a type that is not allowed',
    policy: () =>
      policy(
        may('ec2:RunInstances', { Resource: [arn('image'), arn('volume')] }),
        may('ec2:RunInstances', {
          Resource: arn('instance'),
          ...when({ StringEquals: { 'ec2:InstanceType': 't3.micro' } }),
        }),
      ),
    denied: () =>
      form('RunInstances', { ImageId: EMPTY_IMAGE, MinCount: '1', MaxCount: '1', InstanceType: 'm5.large', ...DRY }),
    allowed: () =>
      form('RunInstances', { ImageId: EMPTY_IMAGE, MinCount: '1', MaxCount: '1', InstanceType: 't3.micro', ...DRY }),
  },
  {
    what: 'launching with a volume that is too large',
    policy: () =>
      policy(
        ALL,
        mayNot('ec2:RunInstances', {
          Resource: arn('volume'),
          ...when({ NumericGreaterThan: { 'ec2:VolumeSize': '8' } }),
        }),
      ),
    denied: () =>
      form('RunInstances', {
        ImageId: EMPTY_IMAGE,
        MinCount: '1',
        MaxCount: '1',
        'BlockDeviceMapping.1.DeviceName': '/dev/sdf',
        'BlockDeviceMapping.1.Ebs.VolumeSize': '9',
        ...DRY,
      }),
    allowed: () => form('RunInstances', { ImageId: EMPTY_IMAGE, MinCount: '1', MaxCount: '1', ...DRY }),
  },
  {
    what: 'NotAction leaves out just what it names',
    policy: () => policy({ Effect: 'Allow', NotAction: 'ec2:Create*', Resource: '*' }),
    denied: cut(),
    allowed: () => form('DeleteSnapshot', { SnapshotId: snapshot, ...DRY }),
  },
  {
    what: 'NotResource leaves out just what it names',
    policy: () => policy({ Effect: 'Allow', Action: 'ec2:*', NotResource: arn('volume', volume()) }),
    denied: () => form('DeleteVolume', { VolumeId: volume(), ...DRY }),
    allowed: () => form('DeleteVolume', { VolumeId: instance.volumes[1], ...DRY }),
  },
  {
    what: 'reading blocks, where only listing is allowed',
    code: 'AccessDeniedException',
    service: 'ebs',
    policy: () => policy(may('ebs:ListSnapshotBlocks')),
    denied: () => rest('GET', `/snapshots/${snapshot}/changedblocks`),
    allowed: () => rest('GET', `/snapshots/${snapshot}/blocks`),
  },
  {
    what: 'blocks of another snapshot than the one named',
    code: 'AccessDeniedException',
    service: 'ebs',
    policy: () => policy(may('ebs:*', { Resource: arn('snapshot', snapshot) })),
    denied: () => rest('GET', '/snapshots/snap-0123456789abcdef0/blocks'),
    allowed: () => rest('GET', `/snapshots/${snapshot}/blocks`),
  },
  {
    what: 'making rules of the recycle bin, where only seeing them is allowed',
    code: 'AccessDeniedException',
    service: 'rbin',
    policy: () => policy(may('rbin:ListRules')),
    denied: () => rest('POST', '/rules', {}, newRule({ ResourceTags: [{ ResourceTagKey: 'none' }] })),
    allowed: () => rest('POST', '/list-rules', {}, '{"ResourceType":"EBS_SNAPSHOT"}'),
  },
  {
    what: 'another rule than the one named',
    code: 'AccessDeniedException',
    service: 'rbin',
    policy: () => policy(may('rbin:*', { Resource: `arn:aws:rbin:us-east-1:000000000001:rule/${rule}` })),
    denied: () => rest('GET', '/rules/0123456789a'),
    allowed: () => rest('GET', `/rules/${rule}`),
  },
  {
    what: 'a session, without the right to ask for one',
    code: 'AccessDenied',
    service: 'sts',
    policy: () => policy(may('ec2:*')),
    denied: () => form('GetSessionToken', {}, '2011-06-15'),
    allowed: () => form('GetCallerIdentity', {}, '2011-06-15'),
  },
  {
    what: 'making users, with the right to see them',
    service: 'cleancut',
    policy: () => policy(may('cleancut:List*')),
    denied: () =>
      rest('POST', '/cleancut/create-user', {}, JSON.stringify({ accountId: '000000000001', userName: 'more' })),
    allowed: () => rest('POST', '/cleancut/list-users', {}, '{}'),
  },
  {
    what: 'giving oneself more rights',
    service: 'cleancut',
    policy: () => policy(may('cleancut:ListKeys')),
    denied: () =>
      rest(
        'POST',
        '/cleancut/set-user-policy',
        {},
        JSON.stringify({
          accountId: '000000000001',
          userName: 'denied',
          policyName: 'p',
          policy: JSON.stringify(policy(ALL)),
        }),
      ),
    allowed: () => rest('POST', '/cleancut/list-keys', {}, '{}'),
  },
];

for (const [index, each] of DENIED.entries()) {
  const { what, service = 'ec2', code = 'UnauthorizedOperation' } = each;
  test(`denied: ${what}; its twin is let through`, async () => {
    const user = await newUser('000000000001', `user-${index}`, each.policy());
    const denied = await ask(user, each.denied(), service);
    assert.equal(denied.code, code, denied.body);
    assert.equal(denied.status, 403);
    const allowed = await ask(user, each.allowed(), service);
    assert.ok(isAllowed(allowed), allowed.body);
    // And it is the policy that keeps him out.
    const byAdmin = await ask(admin, each.denied(), service);
    assert.ok(!['UnauthorizedOperation', 'AccessDenied', 'AccessDeniedException'].includes(byAdmin.code), byAdmin.body);
  });
}

test('a denial says what and why, and who may can decode it; another account cannot', async () => {
  const decode = (message: string) => form('DecodeAuthorizationMessage', { EncodedMessage: message }, '2011-06-15');
  const user = await newUser(
    '000000000001',
    'curious',
    policy(may('ec2:Describe*'), mayNot('ec2:CreateSnapshots', { Sid: 'NoCuts' })),
  );
  const denied = await ask(user, cut()());
  assert.match(
    denied.body,
    /user\/curious is not authorized to perform: ec2:CreateSnapshots on resource: arn:aws:ec2:us-east-1:000000000001:instance\/i-/,
  );
  assert.match(denied.body, /explicit deny/);
  const message = /failure message: ([^<]+)</.exec(denied.body)?.[1] ?? '';
  const answer = await ask(admin, decode(message), 'sts');
  const decoded = /<DecodedMessage>(.*)<\/DecodedMessage>/s.exec(answer.body)?.[1].replaceAll('&quot;', '"') ?? '';
  const { explicitDeny, matchedStatements, context } = JSON.parse(decoded);
  assert.equal(explicitDeny, true);
  assert.deepEqual(matchedStatements.items, [{ statementId: 'NoCuts', effect: 'DENY' }]);
  assert.equal(context.action, 'ec2:CreateSnapshots');
  assert.equal((await ask(stranger, decode(message), 'sts')).code, 'InvalidAuthorizationMessageException');
  assert.equal(
    (await ask(admin, decode(`${message.slice(0, -4)}AAAA`), 'sts')).code,
    'InvalidAuthorizationMessageException',
  );
  assert.equal((await ask(user, decode(message), 'sts')).code, 'AccessDenied');
});

test('a policy that is changed counts at once; one that is not one is refused', async () => {
  const user = await newUser('000000000001', 'changing', policy(may('ec2:DescribeVolumes')));
  const who = { accountId: '000000000001', userName: 'changing' };
  const both = async (): Promise<boolean[]> => [
    isAllowed(await ask(user, form('DescribeVolumes'))),
    isAllowed(await ask(user, form('DescribeSnapshots'))),
  ];
  assert.deepEqual(await both(), [true, false]);
  await server.admin.ask('set-user-policy', {
    ...who,
    policyName: 'more',
    policy: JSON.stringify(policy(may('ec2:DescribeSnapshots'))),
  });
  assert.deepEqual(await both(), [true, true]);
  await server.admin.ask('set-user-policy', {
    ...who,
    policyName: 'no',
    policy: JSON.stringify(policy(mayNot('ec2:DescribeVolumes'))),
  });
  assert.deepEqual(await both(), [false, true]);
  await server.admin.ask('set-user-policy', { ...who, policyName: 'no' });
  assert.deepEqual(await both(), [true, true]);
  await assert.rejects(
    server.admin.ask('set-user-policy', { ...who, policyName: 'bad', policy: '{}' }),
    /MalformedPolicyDocument/,
  );
});

test('tokens of the direct APIs are good for one thing: not for another block, snapshot, list or account', async () => {
  const list = await ask(admin, rest('GET', `/snapshots/${snapshot}/blocks`), 'ebs');
  const { Blocks } = JSON.parse(list.body) as { Blocks: { BlockIndex: number; BlockToken: string }[] };
  const [first, second] = Blocks;
  const get = (who: Credentials, id: string, index: number, blockToken: string) =>
    ask(who, rest('GET', `/snapshots/${id}/blocks/${index}`, { blockToken }), 'ebs');
  assert.equal((await get(admin, snapshot, first.BlockIndex, first.BlockToken)).status, 200);
  const invalid = 'ValidationException';
  for (const [who, id, index, token, code] of [
    [admin, snapshot, first.BlockIndex, second.BlockToken, invalid],
    [admin, snapshot, second.BlockIndex, first.BlockToken, invalid],
    [admin, snapshot, first.BlockIndex, `${first.BlockToken.slice(0, -2)}AA`, invalid],
    [admin, snapshot, first.BlockIndex, 'AAAA', invalid],
    [admin, snapshot, first.BlockIndex, '', invalid],
    [stranger, snapshot, first.BlockIndex, first.BlockToken, 'ResourceNotFoundException'],
  ] as const) {
    const answer = await get(who, id, index, token);
    assert.equal(answer.code, code, answer.body);
  }
  const page = await ask(admin, rest('GET', `/snapshots/${snapshot}/blocks`, { pageToken: first.BlockToken }), 'ebs');
  assert.equal(page.code, invalid);
});

test('no name is a path: not to a file, not to an object, not to another export', async () => {
  for (const path of [
    '/../catalog.sqlite',
    '/cleancut/../../credentials',
    '/cleancut/__proto__',
    '/cleancut/constructor',
    '/%2e%2e/credentials',
    '/snapshots/..%2F..%2Fowner.json/blocks',
  ]) {
    for (const service of ['ec2', 'ebs', 'cleancut']) {
      const answer = await ask(admin, rest(path.startsWith('/snap') ? 'GET' : 'POST', path, {}, '{}'), service);
      assert.ok(answer.status >= 400 && answer.status < 500, `${service} ${path}: ${answer.status} ${answer.body}`);
      assert.ok(!answer.body.includes(admin.secretAccessKey));
    }
  }
  for (const action of ['__proto__', 'constructor', 'toString', 'hasOwnProperty']) {
    assert.equal((await ask(admin, form(action))).code, 'InvalidAction');
  }
  for (const name of [
    `../volumes/${volume()}`,
    `${volume()}/`,
    `${volume()}\0`,
    ` ${volume()}`,
    volume().toUpperCase(),
    'snap-../../owner.json',
    '../credentials',
    'x'.repeat(4096),
  ]) {
    await assert.rejects(server.connect(name), /refuses|closed|ended/);
  }
  const client = await server.connect(volume());
  await client.close();
});
