import type { DescribeVolumeStatusRequest, DescribeVolumeStatusResult, VolumeStatusItem } from '@aws-sdk/client-ec2';
import type { VolumeRow } from '../../catalog/schema.ts';
import { errors } from '../errors.ts';
import { compileFilters, type FilterTable } from '../filters.ts';
import { readVolumeId } from '../identifiers.ts';
import type { Operation } from '../operation.ts';
import { fillPage } from '../pages.ts';
import { findVolumes, volumesAfter } from './find-volume.ts';

const FILTERS: FilterTable<VolumeRow> = {
  'action.code': () => undefined,
  'action.description': () => undefined,
  'action.event-id': () => undefined,
  'availability-zone': (volume) => volume.zone,
  'event.description': () => undefined,
  'event.event-id': () => undefined,
  'event.event-type': () => undefined,
  'event.not-after': () => undefined,
  'event.not-before': () => undefined,
  'volume-status.details-name': () => ['io-enabled', 'io-performance'],
  'volume-status.details-status': (volume) => [statusOf(volume) === 'ok' ? 'passed' : 'failed', 'not-applicable'],
  'volume-status.status': (volume) => statusOf(volume),
};

export const describeVolumeStatus: Operation<DescribeVolumeStatusRequest, DescribeVolumeStatusResult> = {
  honoured: ['VolumeIds', 'Filters', 'MaxResults', 'NextToken'],
  // Nothing here is managed by another service.
  withoutEffect: ['IncludeManagedResources'],

  async run(input, call) {
    const ids = (input.VolumeIds ?? []).map((id) => readVolumeId(id));
    if (ids.length > 0 && input.MaxResults !== undefined) {
      throw errors.combination('The parameter volumeId cannot be used with the parameter maxResults.');
    }
    const matches = compileFilters(input.Filters, FILTERS, () => new Map());
    await call.permit();
    if (ids.length > 0) {
      return { VolumeStatuses: (await findVolumes(call, ids)).filter(matches).map(statusView) };
    }
    const page = await fillPage(
      input,
      { least: 1, most: 1000 },
      (after, most) => volumesAfter(call, after, most),
      (row) => row.volume_id,
      async (rows) => rows,
      matches,
    );
    return { VolumeStatuses: page.items.map(statusView), NextToken: page.nextToken };
  },
};

function statusOf(volume: VolumeRow): 'ok' | 'impaired' {
  return volume.state === 'error' ? 'impaired' : 'ok';
}

function statusView(volume: VolumeRow): VolumeStatusItem {
  const status = statusOf(volume);
  return {
    VolumeId: volume.volume_id,
    AvailabilityZone: volume.zone,
    Actions: [],
    Events: [],
    AttachmentStatuses: [],
    VolumeStatus: {
      Status: status,
      Details: [
        { Name: 'io-enabled', Status: status === 'ok' ? 'passed' : 'failed' },
        { Name: 'io-performance', Status: 'not-applicable' },
      ],
    },
  };
}
