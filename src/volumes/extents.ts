import type { Hydration } from './hydration.ts';
import type { RawFile } from './raw-file.ts';

/** One stretch of a volume, for NBD's base:allocation. A block that is not local yet counts as data. */
export type Extent = { length: number; hole: boolean };

/** The stretches of a volume from `offset` on, merged, at most `most` of them. */
export function findExtents(
  raw: RawFile,
  hydration: Hydration | undefined,
  offset: number,
  length: number,
  most: number,
): Extent[] {
  const extents: Extent[] = [];
  const end = offset + length;
  let at = offset;
  while (at < end) {
    const absentUntil = hydration?.absentUntil(at, end) ?? at;
    let next: number;
    let hole = false;
    if (absentUntil > at) {
      next = absentUntil;
    } else {
      const presentUntil = hydration?.presentUntil(at, end) ?? end;
      const data = Math.min(raw.nextData(at) ?? presentUntil, presentUntil);
      hole = data > at;
      next = hole ? data : Math.min(raw.nextHole(at), presentUntil);
    }
    const last = extents.at(-1);
    if (last !== undefined && last.hole === hole) last.length += next - at;
    else if (extents.length === most) break;
    else extents.push({ length: next - at, hole });
    at = next;
  }
  return extents;
}

/** The first byte from `offset` on that may be something else than zero; infinity where there is none. */
export function nextNonZero(raw: RawFile, hydration: Hydration | undefined, offset: number): number {
  const data = raw.nextData(offset) ?? Number.POSITIVE_INFINITY;
  return hydration === undefined ? data : Math.max(offset, hydration.presentUntil(offset, data));
}
