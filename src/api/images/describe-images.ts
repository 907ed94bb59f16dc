import type {
  ArchitectureValues,
  DescribeImagesRequest,
  DescribeImagesResult,
  Image,
  VirtualizationType,
  VolumeType,
} from '@aws-sdk/client-ec2';
import type { ImageDeviceRow, ImageRow } from '../../catalog/schema.ts';
import { tagsOf } from '../../catalog/tags.ts';
import type { ImageId } from '../../types/ids.ts';
import { errors } from '../errors.ts';
import { compileFilters, type FilterTable } from '../filters.ts';
import { firstMissing, readImageId } from '../identifiers.ts';
import type { Call, Operation } from '../operation.ts';
import { fillPage } from '../pages.ts';
import { tagView } from '../tags/tag-view.ts';
import { type ImageState, imageStates } from './find-image.ts';

type FullImage = ImageRow & {
  state: ImageState;
  devices: (ImageDeviceRow & { data_key_id: string | null })[];
  tags: ReadonlyMap<string, string>;
};

const FILTERS: FilterTable<FullImage> = {
  architecture: (image) => image.architecture,
  'block-device-mapping.delete-on-termination': (image) =>
    image.devices.map((device) => String(device.delete_on_termination === 1)),
  'block-device-mapping.device-name': (image) => image.devices.map((device) => device.device_name),
  'block-device-mapping.snapshot-id': (image) => image.devices.map((device) => device.snapshot_id ?? undefined),
  'block-device-mapping.volume-size': (image) => image.devices.map((device) => String(device.size_gib)),
  'block-device-mapping.volume-type': (image) => image.devices.map((device) => device.volume_type),
  'block-device-mapping.encrypted': (image) => image.devices.map((device) => String(device.data_key_id !== null)),
  'creation-date': (image) => image.created_at,
  description: (image) => image.description,
  hypervisor: () => 'xen',
  'image-id': (image) => image.image_id,
  'image-type': () => 'machine',
  'is-public': (image) => image.is_public === 1,
  name: (image) => image.name,
  'owner-id': (image) => image.account_id,
  'root-device-name': (image) => image.root_device_name,
  'root-device-type': () => 'ebs',
  state: (image) => image.state,
  'virtualization-type': (image) => image.virtualization_type,
};

export const describeImages: Operation<DescribeImagesRequest, DescribeImagesResult> = {
  honoured: ['ImageIds', 'Owners', 'ExecutableUsers', 'Filters', 'MaxResults', 'NextToken'],
  // No image here is deprecated or disabled.
  withoutEffect: ['IncludeDeprecated', 'IncludeDisabled'],

  async run(input, call) {
    const ids = (input.ImageIds ?? []).map((id) => readImageId(id));
    if (ids.length > 0 && input.MaxResults !== undefined) {
      throw errors.combination('The parameter imageId cannot be used with the parameter maxResults.');
    }
    const passes = compileFilters(input.Filters, FILTERS, (image) => image.tags);
    await call.permit();
    const { accountId } = call.caller;
    const owners = new Set((input.Owners ?? []).map((owner) => (owner === 'self' ? accountId : owner)));
    const users = new Set(input.ExecutableUsers ?? []);
    const matches = (image: FullImage): boolean =>
      (owners.size === 0 || owners.has(image.account_id)) &&
      (users.size === 0 ||
        (users.has('all') && image.is_public === 1) ||
        (users.has('self') && image.account_id === accountId)) &&
      passes(image);
    if (ids.length > 0) {
      const rows = await visibleImages(call).where('image_id', 'in', ids).execute();
      const missing = firstMissing(ids, rows, (image) => image.image_id);
      if (missing !== undefined && (input.Filters ?? []).length === 0) throw errors.noImage(missing);
      return { Images: (await withDevices(call, rows)).filter(matches).map(imageView) };
    }
    const page = await fillPage(
      call,
      input,
      { least: 1, most: 1000 },
      {
        fetch: (after, most) =>
          visibleImages(call)
            .where('image_id', '>', after as ImageId)
            .limit(most)
            .execute(),
        idOf: (row) => row.image_id,
      },
      (rows) => withDevices(call, rows),
      matches,
    );
    return { Images: page.items.map(imageView), NextToken: page.nextToken };
  },
};

function visibleImages(call: Call) {
  return call.services.catalog
    .selectFrom('images')
    .selectAll()
    .where((where) => where.or([where('account_id', '=', call.caller.accountId), where('is_public', '=', 1)]))
    .where('region', '=', call.region)
    .orderBy('image_id');
}

async function withDevices(call: Call, images: readonly ImageRow[]): Promise<FullImage[]> {
  const ids = images.map((image) => image.image_id);
  if (ids.length === 0) return [];
  const { catalog } = call.services;
  const devices = await catalog
    .selectFrom('image_devices')
    .leftJoin('snapshots', 'snapshots.snapshot_id', 'image_devices.snapshot_id')
    .selectAll('image_devices')
    .select('snapshots.data_key_id')
    .where('image_id', 'in', ids)
    .orderBy('image_devices.device_name')
    .execute();
  const tags = await tagsOf(catalog, ids);
  const states = await imageStates(catalog, ids);
  const byImage = Map.groupBy(devices, (device) => device.image_id);
  return images.map((image) => ({
    ...image,
    state: states.get(image.image_id) ?? 'available',
    devices: byImage.get(image.image_id) ?? [],
    tags: tags.get(image.image_id) ?? new Map(),
  }));
}

function imageView(image: FullImage): Image {
  return {
    ImageId: image.image_id,
    Name: image.name,
    Description: image.description,
    OwnerId: image.account_id,
    State: image.state,
    Public: image.is_public === 1,
    CreationDate: image.created_at,
    Architecture: image.architecture as ArchitectureValues,
    ImageType: 'machine',
    ImageLocation: `${image.account_id}/${image.name}`,
    RootDeviceType: 'ebs',
    RootDeviceName: image.root_device_name,
    VirtualizationType: image.virtualization_type as VirtualizationType,
    EnaSupport: image.ena_support === 1,
    SriovNetSupport: image.sriov_net_support ?? undefined,
    Hypervisor: 'xen',
    BlockDeviceMappings: image.devices.map((device) => ({
      DeviceName: device.device_name,
      Ebs: {
        SnapshotId: device.snapshot_id ?? undefined,
        VolumeSize: device.size_gib,
        VolumeType: device.volume_type as VolumeType,
        Iops: device.iops ?? undefined,
        Throughput: device.throughput ?? undefined,
        DeleteOnTermination: device.delete_on_termination === 1,
        Encrypted: device.data_key_id !== null,
      },
    })),
    Tags: tagView(image.tags),
  };
}
