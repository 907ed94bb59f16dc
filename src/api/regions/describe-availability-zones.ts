import type { DescribeAvailabilityZonesRequest, DescribeAvailabilityZonesResult } from '@aws-sdk/client-ec2';
import { ApiError } from '../../wire/api-error.ts';
import { compileFilters } from '../filters.ts';
import type { Operation } from '../operation.ts';

type Zone = { name: string; id: string };

export const describeAvailabilityZones: Operation<DescribeAvailabilityZonesRequest, DescribeAvailabilityZonesResult> = {
  honoured: ['ZoneNames', 'ZoneIds', 'Filters'],
  withoutEffect: ['AllAvailabilityZones'],

  async run(input, call) {
    const { region, zones: names } = call;
    const matches = compileFilters<Zone>(
      input.Filters,
      {
        'group-name': () => region,
        'opt-in-status': () => 'opt-in-not-required',
        'region-name': () => region,
        state: () => 'available',
        'zone-id': (zone) => zone.id,
        'zone-name': (zone) => zone.name,
        'zone-type': () => 'availability-zone',
      },
      () => new Map(),
    );
    await call.permit();
    const zones = names.map((name, index) => ({ name, id: `${shortName(region)}-az${index + 1}` }));
    for (const asked of [...(input.ZoneNames ?? []), ...(input.ZoneIds ?? [])]) {
      if (!zones.some((zone) => zone.name === asked || zone.id === asked)) {
        throw new ApiError('InvalidParameterValue', `Invalid availability zone: [${asked}]`);
      }
    }
    const wanted = zones.filter(
      (zone) =>
        (input.ZoneNames === undefined || input.ZoneNames.includes(zone.name)) &&
        (input.ZoneIds === undefined || input.ZoneIds.includes(zone.id)) &&
        matches(zone),
    );
    return {
      AvailabilityZones: wanted.map(({ name, id }) => ({
        ZoneName: name,
        ZoneId: id,
        ZoneType: 'availability-zone',
        State: 'available',
        RegionName: region,
        GroupName: region,
        NetworkBorderGroup: region,
        OptInStatus: 'opt-in-not-required',
        Messages: [],
      })),
    };
  },
};

/** `us-east-1` as zone ids have it: `use1`. */
function shortName(region: string): string {
  const [area, direction = '', number = ''] = region.split('-');
  return `${area}${direction.charAt(0)}${number}`;
}
