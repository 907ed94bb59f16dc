import type { DescribeVolumesRequest, DescribeVolumesResult } from '@aws-sdk/client-ec2';
import { errors } from '../errors.ts';
import { compileFilters, type FilterTable } from '../filters.ts';
import { readVolumeId } from '../identifiers.ts';
import type { Operation } from '../operation.ts';
import { fillPage } from '../pages.ts';
import { findVolumes, volumesAfter } from './find-volume.ts';
import { type TaggedVolume, volumeView, withAttachments } from './volume-view.ts';

const FILTERS: FilterTable<TaggedVolume> = {
  'attachment.attach-time': (volume) => volume.attachments.map((each) => each.attached_at),
  'attachment.delete-on-termination': (volume) =>
    volume.attachments.map((each) => String(each.delete_on_termination === 1)),
  'attachment.device': (volume) => volume.attachments.map((each) => each.device_name),
  'attachment.instance-id': (volume) => volume.attachments.map((each) => each.instance_id),
  'attachment.status': (volume) => volume.attachments.map(() => 'attached'),
  'availability-zone': (volume) => volume.zone,
  'create-time': (volume) => volume.created_at,
  encrypted: (volume) => volume.data_key_id !== null,
  'fast-restored': () => false,
  'multi-attach-enabled': (volume) => volume.multi_attach === 1,
  'operator.managed': () => false,
  size: (volume) => volume.size_gib,
  'snapshot-id': (volume) => volume.snapshot_id ?? undefined,
  status: (volume) => volume.state,
  'volume-id': (volume) => volume.volume_id,
  'volume-type': (volume) => volume.volume_type,
};

export const describeVolumes: Operation<DescribeVolumesRequest, DescribeVolumesResult> = {
  honoured: ['VolumeIds', 'Filters', 'MaxResults', 'NextToken'],
  // Nothing here is managed by another service.
  withoutEffect: ['IncludeManagedResources'],

  async run(input, call) {
    const ids = (input.VolumeIds ?? []).map((id) => readVolumeId(id));
    if (ids.length > 0 && input.MaxResults !== undefined) {
      throw errors.combination('The parameter volumeId cannot be used with the parameter maxResults.');
    }
    const matches = compileFilters(input.Filters, FILTERS, (volume) => volume.tags);
    await call.permit();
    const { catalog } = call.services;
    if (ids.length > 0) {
      const found = await withAttachments(catalog, await findVolumes(call, ids));
      return { Volumes: found.filter(matches).map(volumeView) };
    }
    const page = await fillPage(
      call,
      input,
      { least: 1, most: 500 },
      { fetch: (after, most) => volumesAfter(call, after, most), idOf: (row) => row.volume_id },
      (rows) => withAttachments(catalog, rows),
      matches,
    );
    return { Volumes: page.items.map(volumeView), NextToken: page.nextToken };
  },
};
