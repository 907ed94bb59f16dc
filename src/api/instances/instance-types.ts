import type {
  _InstanceType,
  DescribeInstanceCreditSpecificationsRequest,
  DescribeInstanceCreditSpecificationsResult,
  DescribeInstanceTypeOfferingsRequest,
  DescribeInstanceTypeOfferingsResult,
  DescribeInstanceTypesRequest,
  DescribeInstanceTypesResult,
  InstanceTypeInfo,
} from '@aws-sdk/client-ec2';
import { ApiError } from '../../wire/api-error.ts';
import { compileFilters, type FilterTable } from '../filters.ts';
import { readInstanceId } from '../identifiers.ts';
import type { Operation } from '../operation.ts';
import { findInstances } from './find-instance.ts';

type Size = { name: string; cpus: number; memoryMiB: number };

/** Types that scripts ask for by name. Any type may be launched: what computer connects is no business of the volumes. */
const SIZES: Size[] = [
  { name: 'm1.small', cpus: 1, memoryMiB: 1740 },
  { name: 't2.micro', cpus: 1, memoryMiB: 1024 },
  { name: 't2.small', cpus: 1, memoryMiB: 2048 },
  { name: 't2.medium', cpus: 2, memoryMiB: 4096 },
  { name: 't3.nano', cpus: 2, memoryMiB: 512 },
  { name: 't3.micro', cpus: 2, memoryMiB: 1024 },
  { name: 't3.small', cpus: 2, memoryMiB: 2048 },
  { name: 't3.medium', cpus: 2, memoryMiB: 4096 },
  { name: 't3.large', cpus: 2, memoryMiB: 8192 },
  { name: 'm5.large', cpus: 2, memoryMiB: 8192 },
  { name: 'm5.xlarge', cpus: 4, memoryMiB: 16_384 },
  { name: 'c5.large', cpus: 2, memoryMiB: 4096 },
  { name: 'r5.large', cpus: 2, memoryMiB: 16_384 },
];

const FILTERS: FilterTable<Size> = {
  'bare-metal': () => false,
  'burstable-performance-supported': (size) => isBurstable(size.name),
  'current-generation': (size) => !size.name.startsWith('m1.'),
  hypervisor: () => 'xen',
  'instance-storage-supported': () => false,
  'instance-type': (size) => size.name,
  'memory-info.size-in-mib': (size) => size.memoryMiB,
  'processor-info.supported-architecture': () => 'x86_64',
  'supported-root-device-type': () => 'ebs',
  'supported-virtualization-type': () => 'hvm',
  'vcpu-info.default-vcpus': (size) => size.cpus,
};

export const describeInstanceTypes: Operation<DescribeInstanceTypesRequest, DescribeInstanceTypesResult> = {
  honoured: ['InstanceTypes', 'Filters'],
  // All fit on one page.
  withoutEffect: ['MaxResults', 'NextToken'],

  async run(input, call) {
    const matches = compileFilters(input.Filters, FILTERS, () => new Map());
    await call.permit();
    for (const type of input.InstanceTypes ?? []) {
      if (!SIZES.some((size) => size.name === type)) {
        throw new ApiError('InvalidInstanceType', `The following supplied instance types do not exist: [${type}]`);
      }
    }
    const wanted = SIZES.filter((size) => input.InstanceTypes?.includes(size.name as _InstanceType) ?? true);
    return { InstanceTypes: wanted.filter(matches).map(typeView) };
  },
};

export const describeInstanceTypeOfferings: Operation<
  DescribeInstanceTypeOfferingsRequest,
  DescribeInstanceTypeOfferingsResult
> = {
  honoured: ['LocationType', 'Filters'],
  withoutEffect: ['MaxResults', 'NextToken'],

  async run(input, call) {
    const kind = input.LocationType ?? 'region';
    const locations = kind === 'region' ? [call.region] : call.zones;
    const matches = compileFilters<{ type: string; location: string }>(
      input.Filters,
      { 'instance-type': (offering) => offering.type, location: (offering) => offering.location },
      () => new Map(),
    );
    await call.permit();
    const offerings = locations.flatMap((location) => SIZES.map(({ name }) => ({ type: name, location })));
    return {
      InstanceTypeOfferings: offerings.filter(matches).map(({ type, location }) => ({
        InstanceType: type as _InstanceType,
        LocationType: kind,
        Location: location,
      })),
    };
  },
};

/** Credits are a computer's; every instance has the plain kind. */
export const describeInstanceCreditSpecifications: Operation<
  DescribeInstanceCreditSpecificationsRequest,
  DescribeInstanceCreditSpecificationsResult
> = {
  honoured: ['InstanceIds'],
  withoutEffect: ['Filters', 'MaxResults', 'NextToken'],

  async run(input, call) {
    const ids = (input.InstanceIds ?? []).map((id) => readInstanceId(id));
    await call.permit();
    if (ids.length > 0) await findInstances(call, ids);
    return { InstanceCreditSpecifications: ids.map((InstanceId) => ({ InstanceId, CpuCredits: 'standard' })) };
  },
};

function isBurstable(name: string): boolean {
  return name.startsWith('t');
}

function typeView({ name, cpus, memoryMiB }: Size): InstanceTypeInfo {
  return {
    InstanceType: name as _InstanceType,
    CurrentGeneration: !name.startsWith('m1.'),
    FreeTierEligible: false,
    SupportedUsageClasses: ['on-demand'],
    SupportedRootDeviceTypes: ['ebs'],
    SupportedVirtualizationTypes: ['hvm'],
    BareMetal: false,
    Hypervisor: 'xen',
    ProcessorInfo: { SupportedArchitectures: ['x86_64'] },
    VCpuInfo: { DefaultVCpus: cpus, DefaultCores: cpus, DefaultThreadsPerCore: 1 },
    MemoryInfo: { SizeInMiB: memoryMiB },
    InstanceStorageSupported: false,
    EbsInfo: { EbsOptimizedSupport: 'unsupported', EncryptionSupport: 'unsupported', NvmeSupport: 'unsupported' },
    BurstablePerformanceSupported: isBurstable(name),
    HibernationSupported: false,
    DedicatedHostsSupported: false,
    AutoRecoverySupported: false,
  };
}
