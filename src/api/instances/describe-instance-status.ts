import type { DescribeInstanceStatusRequest, DescribeInstanceStatusResult } from '@aws-sdk/client-ec2';
import type { InstanceRow } from '../../catalog/schema.ts';
import { errors } from '../errors.ts';
import { compileFilters, type FilterTable } from '../filters.ts';
import { readInstanceId } from '../identifiers.ts';
import type { Operation } from '../operation.ts';
import { fillPage } from '../pages.ts';
import { findInstances, instancesAfter } from './find-instance.ts';
import { stateCode, stateView } from './instance-view.ts';

const FILTERS: FilterTable<InstanceRow> = {
  'availability-zone': (instance) => instance.zone,
  'event.code': () => undefined,
  'event.description': () => undefined,
  'event.instance-event-id': () => undefined,
  'event.not-after': () => undefined,
  'event.not-before': () => undefined,
  'instance-state-code': (instance) => stateCode(instance.state),
  'instance-state-name': (instance) => instance.state,
  'instance-status.reachability': (instance) => (instance.state === 'running' ? 'passed' : undefined),
  'instance-status.status': (instance) => healthOf(instance),
  'system-status.reachability': (instance) => (instance.state === 'running' ? 'passed' : undefined),
  'system-status.status': (instance) => healthOf(instance),
};

export const describeInstanceStatus: Operation<DescribeInstanceStatusRequest, DescribeInstanceStatusResult> = {
  honoured: ['InstanceIds', 'Filters', 'MaxResults', 'NextToken', 'IncludeAllInstances'],
  // Nothing here is managed by another service.
  withoutEffect: ['IncludeManagedResources'],

  async run(input, call) {
    const ids = (input.InstanceIds ?? []).map((id) => readInstanceId(id));
    if (ids.length > 0 && input.MaxResults !== undefined) {
      throw errors.combination('The parameter instanceId cannot be used with the parameter maxResults.');
    }
    const passes = compileFilters(input.Filters, FILTERS, () => new Map());
    await call.permit();
    const matches = (instance: InstanceRow): boolean =>
      (input.IncludeAllInstances === true || instance.state === 'running') && passes(instance);
    if (ids.length > 0) {
      return { InstanceStatuses: (await findInstances(call, ids)).filter(matches).map(statusView) };
    }
    const page = await fillPage(
      call,
      input,
      { least: 1, most: 1000 },
      { fetch: (after, most) => instancesAfter(call, after, most), idOf: (row) => row.instance_id },
      async (rows) => rows,
      matches,
    );
    return { InstanceStatuses: page.items.map(statusView), NextToken: page.nextToken };
  },
};

function healthOf(instance: InstanceRow): 'ok' | 'not-applicable' {
  return instance.state === 'running' ? 'ok' : 'not-applicable';
}

function statusView(instance: InstanceRow) {
  const running = instance.state === 'running';
  const Details = running ? [{ Name: 'reachability' as const, Status: 'passed' as const }] : undefined;
  const status = { Status: healthOf(instance), Details };
  return {
    InstanceId: instance.instance_id,
    AvailabilityZone: instance.zone,
    InstanceState: stateView(instance.state),
    InstanceStatus: status,
    SystemStatus: status,
    Events: [],
  };
}
