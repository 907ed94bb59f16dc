import type { Reservation, RunInstancesRequest } from '@aws-sdk/client-ec2';
import type { ImageId, ReservationId } from '../../types/ids.ts';
import { making, snapshotArn, type Target } from '../authorization.ts';
import { willBeEncrypted } from '../encryption.ts';
import { errors } from '../errors.ts';
import { checkSameRequest, readClientToken } from '../idempotency.ts';
import { readImageId, readSnapshotId } from '../identifiers.ts';
import { findImage, imageDevices, imageStates } from '../images/find-image.ts';
import type { Call, Operation } from '../operation.ts';
import { readTagSpecifications, type Tags } from '../tags/tag-rules.ts';
import { checkMappings, planDevices, REFUSED_IN_MAPPINGS, ratesOf } from './device-plan.ts';
import { instanceView, withDevices } from './instance-view.ts';
import { launch } from './launch.ts';

const DEFAULT_INSTANCE_TYPE = 'm1.small';
const MAX_COUNT = 100;

/**
 * An instance here is a named group of volumes with a root device; its computer is any machine that connects over NBD.
 * So what concerns a computer alone (network, keys, metadata, credits) is accepted and has no effect.
 */
export const runInstances: Operation<RunInstancesRequest, Reservation> = {
  honoured: [
    'ImageId',
    'MinCount',
    'MaxCount',
    'InstanceType',
    'BlockDeviceMappings',
    'Placement',
    'TagSpecifications',
    'ClientToken',
    'DisableApiTermination',
    'HibernationOptions',
  ],
  refused: [
    ...REFUSED_IN_MAPPINGS,
    ...[
      'Affinity',
      'AvailabilityZoneId',
      'GroupId',
      'GroupName',
      'HostId',
      'HostResourceGroupArn',
      'PartitionNumber',
      'SpreadDomain',
    ].map((member) => `Placement.${member}`),
  ],
  withoutEffect: [
    'KeyName',
    'SecurityGroups',
    'SecurityGroupIds',
    'SubnetId',
    'UserData',
    'Monitoring',
    'EbsOptimized',
    'IamInstanceProfile',
    'InstanceInitiatedShutdownBehavior',
    'NetworkInterfaces',
    'PrivateIpAddress',
    'CreditSpecification',
    'CpuOptions',
    'MetadataOptions',
    'MaintenanceOptions',
    'PrivateDnsNameOptions',
    'DisableApiStop',
    'CapacityReservationSpecification',
    'EnclaveOptions',
  ],

  async run(input, call) {
    const imageId = readImageId(input.ImageId);
    const count = readCount(input.MinCount, input.MaxCount);
    const { catalog, lifecycle } = call.services;
    const zone = input.Placement?.AvailabilityZone ?? call.zones[0];
    if (!call.zones.includes(zone)) throw errors.unknownZone(zone, call.zones);
    const tenancy = input.Placement?.Tenancy ?? 'default';
    if (tenancy !== 'default') throw errors.unsupported(`Placement.Tenancy=${tenancy}: there are no hosts here.`);
    if (input.HibernationOptions?.Configured === true)
      throw errors.unsupported('HibernationOptions: there is nothing to hibernate.');
    const tags = readTagSpecifications(input.TagSpecifications, ['instance', 'volume']);
    checkMappings(input.BlockDeviceMappings);
    const clientToken = readClientToken(input.ClientToken, input);
    await call.permit({ type: 'image', id: imageId }, () => launchTargets(call, imageId, zone, input, tags));
    return lifecycle.locks.hold([`token ${call.caller.accountId} ${input.ClientToken ?? call.requestId}`], async () => {
      if (clientToken !== undefined) {
        const earlier = await catalog
          .selectFrom('instances')
          .select(['reservation_id', 'client_token_request'])
          .where('account_id', '=', call.caller.accountId)
          .where('region', '=', call.region)
          .where('client_token', '=', clientToken.token)
          .executeTakeFirst();
        if (earlier !== undefined) {
          checkSameRequest(clientToken, earlier.client_token_request);
          return reservationView(call, earlier.reservation_id);
        }
      }
      const image = await findImage(call, imageId);
      const state = (await imageStates(catalog, [imageId])).get(imageId) ?? 'available';
      if (state !== 'available') throw errors.imageUnavailable(imageId, state);
      const devices = await planDevices(call, await imageDevices(catalog, imageId), input.BlockDeviceMappings);
      const [first] = await launch(call, {
        count,
        imageId,
        instanceType: input.InstanceType ?? DEFAULT_INSTANCE_TYPE,
        zone,
        rootDeviceName: image.root_device_name,
        devices,
        instanceTags: tags.get('instance') ?? new Map(),
        volumeTags: tags.get('volume') ?? new Map(),
        clientToken,
        protected: input.DisableApiTermination === true,
      });
      const launched = await catalog
        .selectFrom('instances')
        .select('reservation_id')
        .where('instance_id', '=', first)
        .executeTakeFirstOrThrow();
      return reservationView(call, launched.reservation_id);
    });
  },
};

/** What a launch makes: the instance and each of its volumes, as far as the image is known. */
async function launchTargets(
  call: Call,
  imageId: ImageId,
  zone: string,
  input: RunInstancesRequest,
  tags: ReadonlyMap<string, Tags>,
): Promise<Target[]> {
  const targets = making(call, 'instance', tags.get('instance') ?? new Map(), {
    'ec2:AvailabilityZone': zone,
    'ec2:InstanceType': input.InstanceType ?? DEFAULT_INSTANCE_TYPE,
    'ec2:RootDeviceType': 'ebs',
  });
  const mappings = new Map((input.BlockDeviceMappings ?? []).map((mapping) => [mapping.DeviceName, mapping]));
  const devices = await imageDevices(call.services.catalog, imageId);
  const names = new Set([...devices.map((device) => device.device_name), ...mappings.keys()]);
  for (const name of names) {
    const mapping = mappings.get(name);
    const device = devices.find((candidate) => candidate.device_name === name);
    if (mapping?.NoDevice !== undefined) continue;
    const asked = mapping?.Ebs;
    const source = asked?.SnapshotId === undefined ? device?.snapshot_id : readSnapshotId(asked.SnapshotId);
    if (source !== undefined && source !== null) targets.push({ type: 'snapshot', id: source });
    const wish = { encrypted: asked?.Encrypted, kmsKeyId: asked?.KmsKeyId };
    const rates = ratesOf(asked, device);
    targets.push(
      ...making(call, 'volume', tags.get('volume') ?? new Map(), {
        'ec2:AvailabilityZone': zone,
        'ec2:Encrypted': await willBeEncrypted(call, wish, source ?? undefined),
        'ec2:ParentSnapshot': source && snapshotArn(call.region, source),
        'ec2:VolumeSize': asked?.VolumeSize ?? device?.size_gib,
        'ec2:VolumeType': rates.type,
        'ec2:VolumeIops': rates.iops,
        'ec2:VolumeThroughput': rates.throughput,
      }),
    );
  }
  return targets;
}

/** As many as MaxCount: there is always room for one more group of volumes. */
function readCount(least: number | undefined, most: number | undefined): number {
  if (least === undefined) throw errors.missing('MinCount');
  if (most === undefined) throw errors.missing('MaxCount');
  if (least < 1) throw errors.invalidValue('MinCount', least, 'Expected at least 1.');
  if (most < least) throw errors.invalidValue('MaxCount', most, 'It must not be less than MinCount.');
  if (most > MAX_COUNT) throw errors.invalidValue('MaxCount', most, `At most ${MAX_COUNT} in one call.`);
  return most;
}

async function reservationView(call: Call, reservationId: ReservationId): Promise<Reservation> {
  const { catalog } = call.services;
  const rows = await catalog
    .selectFrom('instances')
    .selectAll()
    .where('reservation_id', '=', reservationId)
    .orderBy('launch_index')
    .execute();
  const instances = await withDevices(catalog, rows);
  return {
    ReservationId: reservationId,
    OwnerId: call.caller.accountId,
    Groups: [],
    Instances: instances.map(instanceView),
  };
}
