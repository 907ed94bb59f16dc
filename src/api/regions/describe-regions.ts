import type { DescribeRegionsRequest, DescribeRegionsResult } from '@aws-sdk/client-ec2';
import { ApiError } from '../../wire/api-error.ts';
import { compileFilters } from '../filters.ts';
import type { Operation } from '../operation.ts';

export const describeRegions: Operation<DescribeRegionsRequest, DescribeRegionsResult> = {
  honoured: ['RegionNames', 'Filters'],
  withoutEffect: ['AllRegions'],

  async run(input, call) {
    const matches = compileFilters<{ name: string; endpoint: string }>(
      input.Filters,
      {
        'region-name': (region) => region.name,
        endpoint: (region) => region.endpoint,
        'opt-in-status': () => 'opt-in-not-required',
      },
      () => new Map(),
    );
    call.permit();
    const { region } = call.services.place;
    for (const name of input.RegionNames ?? []) {
      if (name !== region) throw new ApiError('InvalidParameterValue', `Invalid region name: '${name}'`);
    }
    const own = { name: region, endpoint: `ec2.${region}.amazonaws.com` };
    if (!matches(own)) return { Regions: [] };
    return { Regions: [{ RegionName: own.name, Endpoint: own.endpoint, OptInStatus: 'opt-in-not-required' }] };
  },
};
