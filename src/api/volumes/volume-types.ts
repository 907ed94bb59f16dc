import { errors } from '../errors.ts';

type Range = { least: number; most: number };
type Rule = {
  sizeGiB: Range;
  iops?: Range & { perGiB: number; default?: number };
  throughput?: Range & { default: number };
};

/** What each volume type allows. @see AWS, EBS User Guide, "Amazon EBS volume types" */
const RULES: Record<string, Rule> = {
  gp2: { sizeGiB: { least: 1, most: 16_384 } },
  gp3: {
    sizeGiB: { least: 1, most: 65_536 },
    iops: { least: 3_000, most: 80_000, perGiB: 500, default: 3_000 },
    throughput: { least: 125, most: 2_000, default: 125 },
  },
  io1: { sizeGiB: { least: 4, most: 16_384 }, iops: { least: 100, most: 64_000, perGiB: 50 } },
  io2: { sizeGiB: { least: 4, most: 65_536 }, iops: { least: 100, most: 256_000, perGiB: 1_000 } },
  st1: { sizeGiB: { least: 125, most: 16_384 } },
  sc1: { sizeGiB: { least: 125, most: 16_384 } },
  standard: { sizeGiB: { least: 1, most: 1_024 } },
};

export const DEFAULT_VOLUME_TYPE = 'gp2';

/** Types whose volumes may be attached to several instances at once. */
const MULTI_ATTACH_TYPES = new Set(['io1', 'io2']);

export type VolumeShape = { type: string; sizeGiB: number; iops: number | null; throughput: number | null };

/**
 * Checks a volume's type, size, and rates against the type's rules, and fills in what the type has by default.
 * Rates are kept and shown; nothing here slows a volume down to them.
 * @throws ApiError InvalidParameterValue, InvalidParameterCombination, MissingParameter
 */
export function checkVolumeShape(asked: {
  type: string | undefined;
  sizeGiB: number;
  iops: number | undefined;
  throughput: number | undefined;
}): VolumeShape {
  const type = asked.type ?? DEFAULT_VOLUME_TYPE;
  if (!Object.hasOwn(RULES, type)) {
    throw errors.invalidValue('VolumeType', type, `Expected one of ${Object.keys(RULES).join(', ')}.`);
  }
  const rule = RULES[type];
  const { sizeGiB } = asked;
  if (sizeGiB < rule.sizeGiB.least || sizeGiB > rule.sizeGiB.most) {
    const reason = `A ${type} volume has ${rule.sizeGiB.least} to ${rule.sizeGiB.most} GiB.`;
    throw errors.invalidValue('Size', sizeGiB, reason);
  }
  return {
    type,
    sizeGiB,
    iops: checkIops(type, rule, asked),
    throughput: checkThroughput(type, rule, asked.throughput),
  };
}

/** @throws ApiError InvalidParameterCombination where a volume of the type is for one instance at a time */
export function checkMultiAttach(multiAttach: boolean, type: string | undefined): void {
  if (multiAttach && !MULTI_ATTACH_TYPES.has(type ?? DEFAULT_VOLUME_TYPE)) {
    throw errors.combination('The parameter MultiAttachEnabled is supported for io1 and io2 volumes only.');
  }
}

function checkIops(type: string, rule: Rule, asked: { sizeGiB: number; iops: number | undefined }): number | null {
  const range = rule.iops;
  if (range === undefined) {
    if (asked.iops === undefined) return null;
    throw errors.combination(`The parameter iops is not supported for ${type} volumes.`);
  }
  const iops = asked.iops ?? range.default;
  if (iops === undefined) throw errors.missing('iops');
  if (iops < range.least || iops > range.most) {
    throw errors.invalidValue('Iops', iops, `A ${type} volume has ${range.least} to ${range.most} iops.`);
  }
  if (asked.iops !== undefined && iops > range.least && iops > range.perGiB * asked.sizeGiB) {
    throw errors.invalidValue('Iops', iops, `A ${type} volume has at most ${range.perGiB} iops per GiB.`);
  }
  return iops;
}

function checkThroughput(type: string, rule: Rule, asked: number | undefined): number | null {
  const range = rule.throughput;
  if (range === undefined) {
    if (asked === undefined) return null;
    throw errors.combination(`The parameter throughput is not supported for ${type} volumes.`);
  }
  const throughput = asked ?? range.default;
  if (throughput < range.least || throughput > range.most) {
    throw errors.invalidValue('Throughput', throughput, `A ${type} volume has ${range.least} to ${range.most} MiB/s.`);
  }
  return throughput;
}
