import { PAGES_PER_BLOCK } from './units.ts';

/** Some of a block's 128 pages: 16 bytes, a bit for each page, the lowest first. */
export type PageMask = Uint8Array;

export const PAGE_MASK_BYTES = PAGES_PER_BLOCK / 8;
export const ALL_PAGES: PageMask = new Uint8Array(PAGE_MASK_BYTES).fill(0xff);

/** Pages of a block that follow one another; `page` counts from the block's beginning. */
export type MaskRun = { page: number; count: number };

/** The pages that are in either. */
export function unionOf(a: PageMask, b: PageMask): PageMask {
  return a.map((byte, index) => byte | b[index]);
}

export function countPages(mask: PageMask): number {
  let count = 0;
  for (let byte of mask) {
    while (byte !== 0) {
      byte &= byte - 1;
      count += 1;
    }
  }
  return count;
}

/** The pages in order, neighbours together. */
export function runsOf(mask: PageMask): MaskRun[] {
  const runs: MaskRun[] = [];
  let run: MaskRun | undefined;
  for (let page = 0; page < PAGES_PER_BLOCK; page += 1) {
    if ((mask[page >>> 3] & (1 << (page & 7))) === 0) {
      run = undefined;
    } else if (run === undefined) {
      run = { page, count: 1 };
      runs.push(run);
    } else {
      run.count += 1;
    }
  }
  return runs;
}

export function isSameMask(a: PageMask, b: PageMask): boolean {
  return a.every((byte, index) => byte === b[index]);
}
