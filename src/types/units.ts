import type { Branded } from './ids.ts';

/** Which 512 KiB block of a volume, from 0. */
export type BlockIndex = Branded<number, 'BlockIndex'>;
/** A volume's epochs are numbered from 1; a cut is the boundary at which an epoch begins. */
export type EpochNumber = Branded<number, 'EpochNumber'>;
/** SHA-256 as 64 lower-case hex digits. */
export type Sha256 = Branded<string, 'Sha256'>;

/** The unit of snapshots, as in the EBS direct APIs: 512 KiB. */
export const BLOCK_BYTES = 524_288;
/** The unit of copy-before-write: 4 KiB. */
export const PAGE_BYTES = 4096;
export const PAGES_PER_BLOCK = BLOCK_BYTES / PAGE_BYTES;
export const GIB = 1_073_741_824;
export const MIB = 1_048_576;
export const DAY_MILLISECONDS = 86_400_000;

export function blockOf(offsetBytes: number): BlockIndex {
  return Math.floor(offsetBytes / BLOCK_BYTES) as BlockIndex;
}

/** How many blocks a volume of that size has; the last one may be short. */
export function blockCount(sizeBytes: number): number {
  return Math.ceil(sizeBytes / BLOCK_BYTES);
}

export function asBlock(index: number): BlockIndex {
  return index as BlockIndex;
}

/**
 * The base of a volume of which nothing that is stored may be relied on any more: its next snapshot is to hold everything.
 * (A volume's first epoch is 1.)
 */
export const NO_BASE = asEpoch(0);

export function asEpoch(number: number): EpochNumber {
  return number as EpochNumber;
}

/** Bytes as a person reads them: `1.5 GiB`. */
export function formatBytes(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  const digits = unit === 0 || value >= 100 ? 0 : 1;
  return `${value.toFixed(digits)} ${units[unit]}`;
}
