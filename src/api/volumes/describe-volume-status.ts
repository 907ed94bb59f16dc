import type { DescribeVolumeStatusRequest, DescribeVolumeStatusResult, VolumeStatusItem } from '@aws-sdk/client-ec2';
import type { VolumeRow } from '../../catalog/schema.ts';
import { errors } from '../errors.ts';
import { compileFilters, type FilterTable } from '../filters.ts';
import { readVolumeId } from '../identifiers.ts';
import type { Call, Operation } from '../operation.ts';
import { fillPage } from '../pages.ts';
import { findVolumes, volumesAfter } from './find-volume.ts';

/** A volume, and what its worker says of it: why it refuses every request, where it does. */
type Watched = { volume: VolumeRow; status: 'ok' | 'impaired' | 'insufficient-data'; fault: string | undefined };

const FILTERS: FilterTable<Watched> = {
  'action.code': () => undefined,
  'action.description': () => undefined,
  'action.event-id': () => undefined,
  'availability-zone': ({ volume }) => volume.zone,
  'event.description': ({ fault }) => fault,
  'event.event-id': () => undefined,
  'event.event-type': ({ fault }) => (fault === undefined ? undefined : FAULT_EVENT),
  'event.not-after': () => undefined,
  'event.not-before': () => undefined,
  'volume-status.details-name': () => ['io-enabled', 'io-performance'],
  'volume-status.details-status': ({ status }) => [DETAIL[status], 'not-applicable'],
  'volume-status.status': ({ status }) => status,
};
const DETAIL = { ok: 'passed', impaired: 'failed', 'insufficient-data': 'insufficient-data' } as const;
/** What EC2 says of a volume whose I/O it has stopped, since its data may not be what was written. */
const FAULT_EVENT = 'potential-data-inconsistency';

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
    const watch = await watcher(call);
    if (ids.length > 0) {
      return { VolumeStatuses: (await findVolumes(call, ids)).map(watch).filter(matches).map(statusView) };
    }
    const page = await fillPage(
      call,
      input,
      { least: 1, most: 1000 },
      { fetch: (after, most) => volumesAfter(call, after, most), idOf: (row) => row.volume_id },
      async (rows) => rows.map(watch),
      matches,
    );
    return { VolumeStatuses: page.items.map(statusView), NextToken: page.nextToken };
  },
};

/** Asks the workers once, for all volumes of a request. */
async function watcher(call: Call): Promise<(volume: VolumeRow) => Watched> {
  const { volumes, silent } = await call.services.dataPlane.activity();
  const faults = new Map(volumes.map(({ volumeId, fault }) => [volumeId, fault]));
  return (volume) => {
    const fault = faults.get(volume.volume_id);
    const isImpaired = fault !== undefined || volume.state === 'error';
    // It may be with a worker that does not answer: one that has died, and is being started again, or hangs.
    const isUnknown = silent.length > 0 && !faults.has(volume.volume_id);
    const status = isImpaired ? 'impaired' : isUnknown ? 'insufficient-data' : 'ok';
    return { volume, status, fault };
  };
}

function statusView({ volume, status, fault }: Watched): VolumeStatusItem {
  return {
    VolumeId: volume.volume_id,
    AvailabilityZone: volume.zone,
    Actions: [],
    Events: fault === undefined ? [] : [{ EventType: FAULT_EVENT, Description: fault }],
    AttachmentStatuses: [],
    VolumeStatus: {
      Status: status,
      Details: [
        { Name: 'io-enabled', Status: DETAIL[status] },
        { Name: 'io-performance', Status: 'not-applicable' },
      ],
    },
  };
}
