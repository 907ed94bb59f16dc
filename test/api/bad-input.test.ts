import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import {
  DescribeSnapshotsCommand,
  DescribeVolumesCommand,
  StopInstancesCommand,
  TerminateInstancesCommand,
} from '@aws-sdk/client-ec2';
import { FileCleanup } from '../support/cleanup.ts';
import { createSnapshots, EMPTY_IMAGE, ended, launchInstance, type TestInstance } from '../support/instances.ts';
import { type Asked, askQuery, type How } from '../support/query.ts';
import { readCredentials, startTestServer, type TestServer } from '../support/server.ts';

let server: TestServer;
let instance: TestInstance;
let snapshotId: string;
let terminated: string;
let stopped: TestInstance;
const file = new FileCleanup();
before(async () => {
  server = await startTestServer(file);
  instance = await launchInstance(server.ec2, [2]);
  const snapshots = await ended(server.ec2, await createSnapshots(server.ec2, instance.instanceId));
  snapshotId = snapshots.find((snapshot) => snapshot.VolumeSize === 2)?.SnapshotId ?? '';
  terminated = (await launchInstance(server.ec2, [])).instanceId;
  await server.ec2.send(new TerminateInstancesCommand({ InstanceIds: [terminated] }));
  stopped = await launchInstance(server.ec2, []);
  await server.ec2.send(new StopInstancesCommand({ InstanceIds: [stopped.instanceId] }));
});
after(async () => {
  await server.stop();
  file.run();
});

const ask = (parameters: Asked, how?: How): ReturnType<typeof askQuery> => askQuery(server, parameters, how);

type Case = { what: string; ask: () => Asked; code: string; message: RegExp };

const spec = (): Asked => ({ 'InstanceSpecification.InstanceId': instance.instanceId });
const tag = (key: string, value = 'v'): Asked => ({
  ...spec(),
  'TagSpecification.1.ResourceType': 'snapshot',
  'TagSpecification.1.Tag.1.Key': key,
  'TagSpecification.1.Tag.1.Value': value,
});
const run = (more: Asked = {}): Asked => ({
  action: 'RunInstances',
  ImageId: EMPTY_IMAGE,
  MinCount: '1',
  MaxCount: '1',
  ...more,
});
const volume = (more: Asked = {}): Asked => ({ action: 'CreateVolume', AvailabilityZone: 'us-east-1a', ...more });
const attach = (more: Asked = {}): Asked => ({
  action: 'AttachVolume',
  VolumeId: 'vol-0123456789abcdef0',
  InstanceId: instance.instanceId,
  Device: '/dev/sdx',
  ...more,
});

const CASES: Case[] = [
  { what: 'no action', ask: () => ({ action: '' }), code: 'MissingAction', message: /Action/ },
  {
    what: 'an action that is not in the model',
    ask: () => ({ action: 'MakeCoffee' }),
    code: 'InvalidAction',
    message: /The action MakeCoffee is not valid/,
  },
  {
    what: 'an action that is not built',
    ask: () => ({ action: 'CreateVpc', CidrBlock: '10.0.0.0/16' }),
    code: 'UnsupportedOperation',
    message: /CreateVpc/,
  },
  { what: 'a name of every object', ask: () => ({ action: 'toString' }), code: 'InvalidAction', message: /toString/ },
  {
    what: 'a version that is no date',
    ask: () => ({ ...spec(), version: 'latest' }),
    code: 'InvalidParameterValue',
    message: /latest.*Version/,
  },
  { what: 'CreateSnapshots of nothing', ask: () => ({}), code: 'MissingParameter', message: /InstanceSpecification/ },
  {
    what: 'CreateSnapshots without an instance',
    ask: () => ({ 'InstanceSpecification.ExcludeBootVolume': 'true' }),
    code: 'MissingParameter',
    message: /InstanceId/,
  },
  {
    what: 'a malformed instance id',
    ask: () => ({ 'InstanceSpecification.InstanceId': 'i-xyz' }),
    code: 'InvalidInstanceID.Malformed',
    message: /Invalid id: "i-xyz"/,
  },
  {
    what: 'an unknown instance',
    ask: () => ({ 'InstanceSpecification.InstanceId': 'i-0123456789abcdef0' }),
    code: 'InvalidInstanceID.NotFound',
    message: /The instance ID 'i-0123456789abcdef0' does not exist/,
  },
  {
    what: 'a terminated instance',
    ask: () => ({ 'InstanceSpecification.InstanceId': terminated }),
    code: 'IncorrectInstanceState',
    message: /terminated/,
  },
  {
    what: 'a boolean that is none',
    ask: () => ({ ...spec(), 'InstanceSpecification.ExcludeBootVolume': 'maybe' }),
    code: 'InvalidParameterValue',
    message: /Value \(maybe\) for parameter InstanceSpecification.ExcludeBootVolume/,
  },
  {
    what: 'a parameter that does not exist',
    ask: () => ({ ...spec(), Colour: 'red' }),
    code: 'UnknownParameter',
    message: /The parameter Colour is not recognized/,
  },
  {
    what: 'a nested parameter that does not exist',
    ask: () => ({ ...spec(), 'InstanceSpecification.Colour': 'red' }),
    code: 'UnknownParameter',
    message: /InstanceSpecification.Colour/,
  },
  {
    what: 'a structure given a value',
    ask: () => ({ InstanceSpecification: 'x' }),
    code: 'InvalidParameterValue',
    message: /InstanceSpecification/,
  },
  {
    what: 'a list index that is none',
    ask: () => ({ ...spec(), 'TagSpecification.x.ResourceType': 'snapshot' }),
    code: 'UnknownParameter',
    message: /TagSpecification.x/,
  },
  {
    what: 'an exclusion that is not attached',
    ask: () => ({ ...spec(), 'InstanceSpecification.ExcludeDataVolumeId.1': 'vol-0123456789abcdef0' }),
    code: 'InvalidParameterValue',
    message: /vol-0123456789abcdef0.*not attached/,
  },
  {
    what: 'the root volume as a data volume',
    ask: () => ({ ...spec(), 'InstanceSpecification.ExcludeDataVolumeId.1': instance.root }),
    code: 'InvalidParameterValue',
    message: /root volume/,
  },
  {
    what: 'a malformed exclusion',
    ask: () => ({ ...spec(), 'InstanceSpecification.ExcludeDataVolumeId.1': 'disk1' }),
    code: 'InvalidParameterValue',
    message: /disk1/,
  },
  {
    what: 'a description too long',
    ask: () => ({ ...spec(), Description: 'x'.repeat(256) }),
    code: 'InvalidParameterValue',
    message: /Description.*255/,
  },
  {
    what: 'a description that XML cannot hold',
    ask: () => ({ ...spec(), Description: 'bell \u0007' }),
    code: 'InvalidParameterValue',
    message: /Description/,
  },
  {
    what: 'tags copied from the moon',
    ask: () => ({ ...spec(), CopyTagsFromSource: 'moon' }),
    code: 'InvalidParameterValue',
    message: /moon.*CopyTagsFromSource/,
  },
  {
    what: 'an Outpost',
    ask: () => ({ ...spec(), OutpostArn: 'arn:aws:outposts:us-east-1:1:outpost/op-1' }),
    code: 'InvalidParameterValue',
    message: /OutpostArn/,
  },
  {
    what: 'a local snapshot',
    ask: () => ({ ...spec(), Location: 'local' }),
    code: 'UnsupportedOperation',
    message: /Local Zones/,
  },
  {
    what: 'tags for another kind of resource',
    ask: () => ({ ...tag('k'), 'TagSpecification.1.ResourceType': 'volume' }),
    code: 'InvalidParameterValue',
    message: /'volume' is not a valid taggable resource type/,
  },
  {
    what: 'tags without a resource type',
    ask: () => ({ ...spec(), 'TagSpecification.1.Tag.1.Key': 'k' }),
    code: 'InvalidParameterValue',
    message: /must have a value/,
  },
  {
    what: 'a tag specification without tags',
    ask: () => ({ ...spec(), 'TagSpecification.1.ResourceType': 'snapshot' }),
    code: 'InvalidParameterValue',
    message: /at least one tag/,
  },
  { what: 'an empty tag key', ask: () => tag(''), code: 'InvalidParameterValue', message: /empty/ },
  {
    what: 'a reserved tag key',
    ask: () => tag('aws:mine'),
    code: 'InvalidParameterValue',
    message: /reserved for internal use/,
  },
  {
    what: 'a reserved tag key in capitals',
    ask: () => tag('AWS:mine'),
    code: 'InvalidParameterValue',
    message: /reserved for internal use/,
  },
  {
    what: 'a tag key of 128 characters',
    ask: () => tag('k'.repeat(128)),
    code: 'InvalidParameterValue',
    message: /maximum length of 127/,
  },
  {
    what: 'a tag value of 256 characters',
    ask: () => tag('k', 'v'.repeat(256)),
    code: 'InvalidParameterValue',
    message: /maximum length of 255/,
  },
  {
    what: 'a tag key twice',
    ask: () => ({ ...tag('k'), 'TagSpecification.1.Tag.2.Key': 'k' }),
    code: 'InvalidParameterValue',
    message: /Duplicate tag key 'k'/,
  },
  {
    what: '51 tags',
    ask: () =>
      Object.fromEntries([
        ...Object.entries(tag('k0')),
        ...Array.from({ length: 50 }, (_, n) => [`TagSpecification.1.Tag.${n + 2}.Key`, `k${n + 1}`]),
      ]),
    code: 'TagLimitExceeded',
    message: /maximum number of Tags/,
  },
  {
    what: 'RunInstances without an image',
    ask: () => run({ ImageId: undefined }),
    code: 'MissingParameter',
    message: /ImageId/,
  },
  {
    what: 'a malformed image id',
    ask: () => run({ ImageId: 'image-1' }),
    code: 'InvalidAMIID.Malformed',
    message: /"image-1" \(expecting "ami-..."\)/,
  },
  {
    what: 'an unknown image',
    ask: () => run({ ImageId: 'ami-0123456789abcdef0' }),
    code: 'InvalidAMIID.NotFound',
    message: /'\[ami-0123456789abcdef0\]' does not exist/,
  },
  { what: 'no instances', ask: () => run({ MinCount: '0' }), code: 'InvalidParameterValue', message: /MinCount/ },
  {
    what: 'fewer at most than at least',
    ask: () => run({ MinCount: '2' }),
    code: 'InvalidParameterValue',
    message: /MaxCount/,
  },
  {
    what: 'a count that is no number',
    ask: () => run({ MinCount: 'two' }),
    code: 'InvalidParameterValue',
    message: /Value \(two\) for parameter MinCount/,
  },
  {
    what: 'a zone that is not here',
    ask: () => run({ 'Placement.AvailabilityZone': 'eu-west-1a' }),
    code: 'InvalidParameterValue',
    message: /eu-west-1a/,
  },
  {
    what: 'a device name that is none',
    ask: () => run({ 'BlockDeviceMapping.1.DeviceName': 'C:', 'BlockDeviceMapping.1.Ebs.VolumeSize': '1' }),
    code: 'InvalidParameterValue',
    message: /C:/,
  },
  {
    what: 'a mapping without a volume',
    ask: () => run({ 'BlockDeviceMapping.1.DeviceName': '/dev/sdf' }),
    code: 'MissingParameter',
    message: /Ebs/,
  },
  {
    what: 'a mapping from an unknown snapshot',
    ask: () =>
      run({
        'BlockDeviceMapping.1.DeviceName': '/dev/sdf',
        'BlockDeviceMapping.1.Ebs.SnapshotId': 'snap-0123456789abcdef0',
      }),
    code: 'InvalidSnapshot.NotFound',
    message: /snap-0123456789abcdef0/,
  },
  {
    what: 'an instance parameter that would be ignored',
    ask: () => run({ 'InstanceMarketOptions.MarketType': 'spot' }),
    code: 'UnsupportedOperation',
    message: /InstanceMarketOptions/,
  },
  {
    what: 'a volume without a zone',
    ask: () => ({ action: 'CreateVolume', Size: '1' }),
    code: 'MissingParameter',
    message: /AvailabilityZone/,
  },
  { what: 'a volume of no size', ask: () => volume(), code: 'MissingParameter', message: /size\/snapshot/ },
  { what: 'a volume of size 0', ask: () => volume({ Size: '0' }), code: 'InvalidParameterValue', message: /Size/ },
  {
    what: 'a volume too large for its type',
    ask: () => volume({ Size: '16385' }),
    code: 'InvalidParameterValue',
    message: /16385/,
  },
  {
    what: 'a type that is none',
    ask: () => volume({ Size: '1', VolumeType: 'ssd' }),
    code: 'InvalidParameterValue',
    message: /ssd.*gp2/,
  },
  {
    what: 'iops for gp2',
    ask: () => volume({ Size: '1', Iops: '500' }),
    code: 'InvalidParameterCombination',
    message: /iops is not supported for gp2/,
  },
  {
    what: 'io1 without iops',
    ask: () => volume({ Size: '4', VolumeType: 'io1' }),
    code: 'MissingParameter',
    message: /iops/,
  },
  {
    what: 'more iops than the size allows',
    ask: () => volume({ Size: '4', VolumeType: 'io1', Iops: '1000' }),
    code: 'InvalidParameterValue',
    message: /50 iops per GiB/,
  },
  {
    what: 'throughput for io2',
    ask: () => volume({ Size: '4', VolumeType: 'io2', Iops: '100', Throughput: '200' }),
    code: 'InvalidParameterCombination',
    message: /throughput/,
  },
  {
    what: 'a volume smaller than its snapshot',
    ask: () => volume({ Size: '1', SnapshotId: snapshotId }),
    code: 'InvalidParameterValue',
    message: /expect size >= 2GB/,
  },
  {
    what: 'a malformed snapshot id',
    ask: () => volume({ SnapshotId: 'snapshot' }),
    code: 'InvalidSnapshotID.Malformed',
    message: /'snapshot'/,
  },
  {
    what: 'a KMS key without encryption',
    ask: () => volume({ Size: '1', KmsKeyId: 'alias/mine' }),
    code: 'InvalidParameterDependency',
    message: /Encrypted/,
  },
  {
    what: 'a KMS key that is not there',
    ask: () => volume({ Size: '1', Encrypted: 'true', KmsKeyId: 'alias/mine' }),
    code: 'InvalidKMSKey.NotFound',
    message: /alias\/mine/,
  },
  {
    what: 'attaching an unknown volume',
    ask: () => attach(),
    code: 'InvalidVolume.NotFound',
    message: /vol-0123456789abcdef0/,
  },
  {
    what: 'attaching without a device',
    ask: () => attach({ Device: undefined }),
    code: 'MissingParameter',
    message: /Device/,
  },
  {
    what: 'attaching what is attached',
    ask: () => attach({ VolumeId: instance.volumes[0] }),
    code: 'VolumeInUse',
    message: /already attached/,
  },
  {
    what: 'detaching what is not attached',
    ask: () => ({ action: 'DetachVolume', VolumeId: 'vol-0123456789abcdef0' }),
    code: 'InvalidVolume.NotFound',
    message: /does not exist/,
  },
  {
    what: 'detaching from the wrong instance',
    ask: () => ({ action: 'DetachVolume', VolumeId: instance.volumes[0], InstanceId: stopped.instanceId }),
    code: 'InvalidAttachment.NotFound',
    message: /not attached to instance/,
  },
  {
    what: 'detaching the root of a running instance',
    ask: () => ({ action: 'DetachVolume', VolumeId: instance.root }),
    code: 'OperationNotPermitted',
    message: /root volume/,
  },
  {
    what: 'deleting what is attached',
    ask: () => ({ action: 'DeleteVolume', VolumeId: instance.volumes[0] }),
    code: 'VolumeInUse',
    message: /is currently attached to i-/,
  },
  { what: 'deleting nothing', ask: () => ({ action: 'DeleteVolume' }), code: 'MissingParameter', message: /VolumeId/ },
  {
    what: 'deleting an unknown snapshot',
    ask: () => ({ action: 'DeleteSnapshot', SnapshotId: 'snap-0123456789abcdef0' }),
    code: 'InvalidSnapshot.NotFound',
    message: /does not exist/,
  },
  {
    what: 'starting a terminated instance',
    ask: () => ({ action: 'StartInstances', 'InstanceId.1': terminated }),
    code: 'IncorrectInstanceState',
    message: /terminated/,
  },
  {
    what: 'stopping nothing',
    ask: () => ({ action: 'StopInstances' }),
    code: 'MissingParameter',
    message: /InstanceId/,
  },
  {
    what: 'a filter that does not exist',
    ask: () => ({ action: 'DescribeSnapshots', 'Filter.1.Name': 'colour', 'Filter.1.Value.1': 'red' }),
    code: 'InvalidParameterValue',
    message: /The filter 'colour' is invalid/,
  },
  {
    what: 'a filter named like an inherited member',
    ask: () => ({ action: 'DescribeVolumes', 'Filter.1.Name': 'constructor', 'Filter.1.Value.1': 'x' }),
    code: 'InvalidParameterValue',
    message: /constructor/,
  },
  {
    what: 'a page token that is none',
    ask: () => ({ action: 'DescribeVolumes', NextToken: 'zzz' }),
    code: 'InvalidParameterValue',
    message: /nextToken/,
  },
  {
    what: 'ids and pages at once',
    ask: () => ({ action: 'DescribeSnapshots', 'SnapshotId.1': snapshotId, MaxResults: '5' }),
    code: 'InvalidParameterCombination',
    message: /maxResults/,
  },
  {
    what: 'tagging nothing',
    ask: () => ({ action: 'CreateTags', 'Tag.1.Key': 'k' }),
    code: 'MissingParameter',
    message: /Resource/,
  },
  {
    what: 'tagging what cannot exist',
    ask: () => ({ action: 'CreateTags', 'ResourceId.1': 'lake-1', 'Tag.1.Key': 'k' }),
    code: 'InvalidID',
    message: /lake-1/,
  },
  {
    what: 'tagging what does not exist',
    ask: () => ({ action: 'CreateTags', 'ResourceId.1': 'snap-0123456789abcdef0', 'Tag.1.Key': 'k' }),
    code: 'InvalidSnapshot.NotFound',
    message: /snap-0123456789abcdef0/,
  },
  {
    what: 'a region that is not here',
    ask: () => ({ action: 'DescribeRegions', 'RegionName.1': 'mars-1' }),
    code: 'InvalidParameterValue',
    message: /mars-1/,
  },
  {
    what: 'a zone that is not here',
    ask: () => ({ action: 'DescribeAvailabilityZones', 'ZoneName.1': 'mars-1a' }),
    code: 'InvalidParameterValue',
    message: /mars-1a/,
  },
];

for (const each of CASES) {
  test(`refused: ${each.what} → ${each.code}`, async () => {
    const answer = await ask(each.ask());
    assert.equal(answer.code, each.code, answer.body);
    assert.match(answer.message, each.message);
    assert.ok(answer.status >= 400);
    assert.match(answer.body, /<RequestID>[0-9a-f-]{36}<\/RequestID>/);
  });
}

test('after all that bad input nothing half-done is left', async () => {
  const volumes = await server.ec2.send(new DescribeVolumesCommand({}));
  assert.deepEqual(
    new Set(volumes.Volumes?.map((each) => each.VolumeId)),
    new Set([instance.root, ...instance.volumes, stopped.root]),
  );
  const snapshots = await server.ec2.send(new DescribeSnapshotsCommand({ OwnerIds: ['self'] }));
  assert.equal(snapshots.Snapshots?.length, 2);
});

test('GET with the parameters in the query string works like POST', async () => {
  const answer = await ask({ action: 'DescribeRegions' }, { method: 'GET' });
  assert.equal(answer.status, 200, answer.body);
  assert.match(
    answer.body,
    /<DescribeRegionsResponse xmlns="http:\/\/ec2.amazonaws.com\/doc\/2016-11-15\/"><requestId>/,
  );
});

test('an older date as Version is taken', async () => {
  assert.equal((await ask({ action: 'DescribeRegions', version: '2014-06-15' })).status, 200);
});

test('signatures: wrong secret, unknown key, tampered body, other region, stale and future dates', async () => {
  const { accessKeyId, secretAccessKey } = readCredentials(server.dataDir);
  const wrong = await ask(spec(), { credentials: { accessKeyId, secretAccessKey: 'wrong' } });
  assert.deepEqual([wrong.status, wrong.code], [401, 'AuthFailure']);
  const unknown = await ask(spec(), { credentials: { accessKeyId: 'AKIAUNKNOWNUNKNOWN00', secretAccessKey } });
  assert.deepEqual([unknown.status, unknown.code, unknown.message], [401, 'AuthFailure', wrong.message]);
  const tampered = await ask(spec(), { tamper: true });
  assert.deepEqual([tampered.status, tampered.code], [401, 'AuthFailure']);
  const elsewhere = await ask(spec(), { region: 'eu-west-1' });
  assert.deepEqual([elsewhere.status, elsewhere.code], [401, 'AuthFailure']);
  for (const minutes of [-6, 6]) {
    const stale = await ask(spec(), { at: new Date(Date.now() + minutes * 60_000) });
    assert.deepEqual([stale.status, stale.code], [400, 'RequestExpired']);
  }
  const fresh = await ask({ action: 'DescribeRegions' }, { at: new Date(Date.now() - 4 * 60_000) });
  assert.equal(fresh.status, 200);
});

test('unsigned and half-signed requests are told what is missing', async () => {
  const unsigned = await fetch(server.apiUrl, { method: 'POST', body: 'Action=DescribeRegions&Version=2016-11-15' });
  assert.match(await unsigned.text(), /<Code>MissingParameter<\/Code>.*AWSAccessKeyId/s);
  for (const authorization of [
    'AWS4-HMAC-SHA256 Credential=x',
    'Basic abc',
    'AWS4-HMAC-SHA256 Credential=a/b/c/d/e, SignedHeaders=host, Signature=0',
  ]) {
    const half = await fetch(server.apiUrl, {
      method: 'POST',
      headers: { authorization },
      body: 'Action=DescribeRegions',
    });
    assert.match(await half.text(), /<Code>IncompleteSignature<\/Code>/);
  }
});

test('a body without end is refused, and the server goes on', async () => {
  const large = await fetch(server.apiUrl, { method: 'POST', body: 'x'.repeat(2_000_000) }).then(
    (response) => response.status,
    () => 413,
  );
  assert.equal(large, 413);
  assert.equal((await fetch(`${server.apiUrl}/health`)).status, 200);
});
