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
    await call.permit();
    const { regions } = call.services;
    for (const name of input.RegionNames ?? []) {
      if (!regions.has(name)) throw new ApiError('InvalidParameterValue', `Invalid region name: '${name}'`);
    }
    const all = [...regions.keys()].map((name) => ({ name, endpoint: `ec2.${name}.amazonaws.com` }));
    const wanted = all.filter((region) => input.RegionNames?.includes(region.name) ?? true).filter(matches);
    return {
      Regions: wanted.map(({ name, endpoint }) => ({
        RegionName: name,
        Endpoint: endpoint,
        OptInStatus: 'opt-in-not-required',
      })),
    };
  },
};
