import type { DescribeInstancesRequest, DescribeInstancesResult, Reservation } from '@aws-sdk/client-ec2';
import { errors } from '../errors.ts';
import { compileFilters, type FilterTable } from '../filters.ts';
import { readInstanceId } from '../identifiers.ts';
import type { Operation } from '../operation.ts';
import { fillPage } from '../pages.ts';
import { findInstances, instancesAfter } from './find-instance.ts';
import { instanceView, stateCode, type TaggedInstance, withDevices } from './instance-view.ts';

const FILTERS: FilterTable<TaggedInstance> = {
  architecture: () => 'x86_64',
  'availability-zone': (instance) => instance.zone,
  'block-device-mapping.attach-time': (instance) => instance.attachments.map((each) => each.attached_at),
  'block-device-mapping.delete-on-termination': (instance) =>
    instance.attachments.map((each) => String(each.delete_on_termination === 1)),
  'block-device-mapping.device-name': (instance) => instance.attachments.map((each) => each.device_name),
  'block-device-mapping.status': (instance) => instance.attachments.map(() => 'attached'),
  'block-device-mapping.volume-id': (instance) => instance.attachments.map((each) => each.volume_id),
  'client-token': (instance) => instance.client_token ?? undefined,
  hypervisor: () => 'xen',
  'image-id': (instance) => instance.image_id,
  'instance-id': (instance) => instance.instance_id,
  'instance-state-code': (instance) => stateCode(instance.state),
  'instance-state-name': (instance) => instance.state,
  'instance-type': (instance) => instance.instance_type,
  'launch-index': (instance) => instance.launch_index,
  'launch-time': (instance) => instance.launched_at,
  'owner-id': (instance) => instance.account_id,
  'reservation-id': (instance) => instance.reservation_id,
  'root-device-name': (instance) => instance.root_device_name,
  'root-device-type': () => 'ebs',
  'virtualization-type': () => 'hvm',
};

export const describeInstances: Operation<DescribeInstancesRequest, DescribeInstancesResult> = {
  honoured: ['InstanceIds', 'Filters', 'MaxResults', 'NextToken'],
  // Nothing here is managed by another service.
  withoutEffect: ['IncludeManagedResources'],

  async run(input, call) {
    const ids = (input.InstanceIds ?? []).map((id) => readInstanceId(id));
    if (ids.length > 0 && input.MaxResults !== undefined) {
      throw errors.combination('The parameter instancesSet cannot be used with the parameter maxResults.');
    }
    const matches = compileFilters(input.Filters, FILTERS, (instance) => instance.tags);
    await call.permit();
    const { catalog } = call.services;
    if (ids.length > 0) {
      const found = await withDevices(catalog, await findInstances(call, ids));
      return { Reservations: inReservations(found.filter(matches)) };
    }
    const page = await fillPage(
      call,
      input,
      { least: 1, most: 1000 },
      { fetch: (after, most) => instancesAfter(call, after, most), idOf: (row) => row.instance_id },
      (rows) => withDevices(catalog, rows),
      matches,
    );
    return { Reservations: inReservations(page.items), NextToken: page.nextToken };
  },
};

function inReservations(instances: readonly TaggedInstance[]): Reservation[] {
  const grouped = Map.groupBy(instances, (instance) => instance.reservation_id);
  return [...grouped].map(([ReservationId, members]) => ({
    ReservationId,
    OwnerId: members[0].account_id,
    Groups: [],
    Instances: members.map(instanceView),
  }));
}
