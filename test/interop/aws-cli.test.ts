import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { test } from 'node:test';
import { startTestServer } from '../support/server.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';
import { tool, without } from '../support/tools.ts';

/** Debian's, where it is: another one on the PATH may be a shim. */
const AWS = existsSync('/usr/bin/aws') ? '/usr/bin/aws' : 'aws';

test('the AWS CLI does the whole job: launch, snapshot, wait, restore, attach, tidy up', {
  skip: without(AWS),
}, async (t) => {
  const archive = temporaryDirectory(t);
  const server = await startTestServer(t, { flags: ['--archive-store', `file://${archive}`] });
  // biome-ignore lint/suspicious/noExplicitAny: whatever the CLI prints.
  const aws = async (service: string, ...argv: string[]): Promise<any> => {
    const base = ['--region', 'us-east-1', '--endpoint-url', server.apiUrl, '--output', 'json', service, ...argv];
    const out = await tool(AWS, base, { AWS_SHARED_CREDENTIALS_FILE: `${server.dataDir}/credentials`, AWS_PAGER: '' });
    return out === '' ? undefined : JSON.parse(out);
  };
  const ec2 = (...argv: string[]) => aws('ec2', ...argv);
  assert.equal((await aws('sts', 'get-caller-identity')).Account, '000000000001');
  assert.deepEqual(
    (await ec2('describe-regions')).Regions.map((each: { RegionName: string }) => each.RegionName),
    ['us-east-1'],
  );
  assert.equal((await ec2('describe-availability-zones')).AvailabilityZones.length, 3);
  const [image] = (await ec2('describe-images', '--filters', 'Name=is-public,Values=true')).Images;

  const reservation = await ec2(
    'run-instances',
    '--image-id',
    image.ImageId,
    '--count',
    '1',
    '--instance-type',
    't3.micro',
    '--placement',
    'AvailabilityZone=us-east-1b',
    '--block-device-mappings',
    'DeviceName=/dev/sdf,Ebs={VolumeSize=2,VolumeType=gp3,DeleteOnTermination=false}',
    '--tag-specifications',
    'ResourceType=instance,Tags=[{Key=Name,Value=db}]',
    'ResourceType=volume,Tags=[{Key=team,Value=storage}]',
  );
  const instanceId = reservation.Instances[0].InstanceId;
  await ec2('wait', 'instance-running', '--instance-ids', instanceId);
  const [described] = (await ec2('describe-instances', '--filters', 'Name=tag:Name,Values=d?')).Reservations[0]
    .Instances;
  assert.equal(described.InstanceId, instanceId);
  const volumeId = described.BlockDeviceMappings.find((each: { DeviceName: string }) => each.DeviceName === '/dev/sdf')
    .Ebs.VolumeId;

  const bytes = randomBytes(3_000_000);
  const client = await server.connect(volumeId);
  await client.write(777_777, bytes);
  const { Snapshots: snapshots } = await ec2(
    'create-snapshots',
    '--instance-specification',
    `InstanceId=${instanceId},ExcludeBootVolume=false`,
    '--description',
    'nightly',
    '--copy-tags-from-source',
    'volume',
    '--tag-specifications',
    'ResourceType=snapshot,Tags=[{Key=run,Value=42}]',
  );
  await client.write(777_777, Buffer.alloc(3_000_000, 1));
  await client.close();
  assert.equal(snapshots.length, 2);
  for (const snapshot of snapshots) {
    assert.deepEqual(Object.keys(snapshot).sort(), [
      'Description',
      'Encrypted',
      'OwnerId',
      'Progress',
      'SnapshotId',
      'StartTime',
      'State',
      'Tags',
      'VolumeId',
      'VolumeSize',
    ]);
    assert.deepEqual(snapshot.Tags, [
      { Key: 'team', Value: 'storage' },
      { Key: 'run', Value: '42' },
    ]);
  }
  const ids = snapshots.map((each: { SnapshotId: string }) => each.SnapshotId);
  await ec2('wait', 'snapshot-completed', '--snapshot-ids', ...ids);
  const snapshotId = snapshots.find((each: { VolumeId: string }) => each.VolumeId === volumeId).SnapshotId;

  const copy = await ec2(
    'create-volume',
    '--availability-zone',
    'us-east-1b',
    '--snapshot-id',
    snapshotId,
    '--volume-type',
    'gp3',
  );
  await ec2('wait', 'volume-available', '--volume-ids', copy.VolumeId);
  await ec2('attach-volume', '--volume-id', copy.VolumeId, '--instance-id', instanceId, '--device', '/dev/sdg');
  await ec2('wait', 'volume-in-use', '--volume-ids', copy.VolumeId);
  const restored = await server.connect(copy.VolumeId);
  assert.ok((await restored.read(777_777, bytes.length)).equals(bytes));
  await restored.close();

  await ec2('create-tags', '--resources', snapshotId, '--tags', 'Key=kept,Value=yes');
  const tags = (await ec2('describe-tags', '--filters', `Name=resource-id,Values=${snapshotId}`)).Tags;
  assert.deepEqual(
    tags.map((each: { Key: string }) => each.Key),
    ['kept', 'run', 'team'],
  );
  await ec2('delete-tags', '--resources', snapshotId, '--tags', 'Key=kept');
  await ec2('detach-volume', '--volume-id', copy.VolumeId);
  await ec2('delete-volume', '--volume-id', copy.VolumeId);
  await ec2('stop-instances', '--instance-ids', instanceId);
  await ec2('wait', 'instance-stopped', '--instance-ids', instanceId);
  await ec2('start-instances', '--instance-ids', instanceId);
  await ec2('terminate-instances', '--instance-ids', instanceId);
  await ec2('wait', 'instance-terminated', '--instance-ids', instanceId);
  const left = (await ec2('describe-volumes')).Volumes;
  assert.deepEqual(
    left.map((each: { VolumeId: string }) => each.VolumeId),
    [volumeId],
    'DeleteOnTermination=false keeps a volume',
  );
  const period = ['--retention-period', 'RetentionPeriodValue=7,RetentionPeriodUnit=DAYS'];
  const rule = await aws(
    'rbin',
    'create-rule',
    '--resource-type',
    'EBS_SNAPSHOT',
    ...period,
    '--description',
    'a week',
  );
  assert.equal(rule.Status, 'available');
  for (const id of ids) await ec2('delete-snapshot', '--snapshot-id', id);
  assert.deepEqual((await ec2('describe-snapshots', '--owner-ids', 'self')).Snapshots, []);
  const kept = (await ec2('list-snapshots-in-recycle-bin')).Snapshots;
  assert.deepEqual(kept.map((each: { SnapshotId: string }) => each.SnapshotId).sort(), [...ids].sort());
  await ec2('restore-snapshot-from-recycle-bin', '--snapshot-id', snapshotId);
  await aws('rbin', 'delete-rule', '--identifier', rule.Identifier);
  assert.deepEqual((await aws('rbin', 'list-rules', '--resource-type', 'EBS_SNAPSHOT')).Rules, []);
  const [back] = (await ec2('describe-snapshots', '--owner-ids', 'self')).Snapshots;
  assert.deepEqual([back.SnapshotId, back.State], [snapshotId, 'completed']);

  await ec2('modify-snapshot-tier', '--snapshot-id', snapshotId, '--storage-tier', 'archive');
  for (let tries = 0; ; tries += 1) {
    const [status] = (await ec2('describe-snapshot-tier-status')).SnapshotTierStatuses;
    if (status.LastTieringOperationStatus === 'archival-completed' && status.StorageTier === 'archive') break;
    assert.ok(tries < 20, JSON.stringify(status));
  }
  const broughtBack = await ec2('restore-snapshot-tier', '--snapshot-id', snapshotId, '--permanent-restore');
  assert.equal(broughtBack.IsPermanentRestore, true);
});
