import { setImmediate, setTimeout } from 'node:timers/promises';
import { BLOCK_BYTES } from '../types/units.ts';

/** Two blocks: to save their old bytes, or to give back their pages, takes the thread that serves guests a millisecond or two. */
const STEP_BYTES = 2 * BLOCK_BYTES;
/** Times as long as the step took. */
const REST = 2;

/** Does what is to be done to a part of the range, in bytes. */
export type RangeStep = (offset: number, length: number) => void | Promise<void>;

/**
 * Goes over a range in steps, with turns for others between: a request for gigabytes does not hold them up.
 *
 * After a step that has saved old bytes it rests. Else the kernel, once the disk has too much to write, makes the thread
 * stand still for hundreds of milliseconds, and all its guests with it.
 * @param nextFrom the first byte at or after the one it is given at which there may be something to do
 * @param savedBytes so far
 * @param isGone whether who asked is there no more: then the rest is left undone
 * @throws when it is left undone
 */
export function inSteps(
  offset: number,
  length: number,
  nextFrom: (at: number) => number,
  step: RangeStep,
  savedBytes: () => number,
  isGone: () => boolean,
): void | Promise<void> {
  const end = offset + length;
  const first = nextFrom(offset);
  if (first >= end) return;
  if (end - first <= STEP_BYTES) return step(first, end - first);
  return (async () => {
    for (let at = first; at < end; at = nextFrom(at)) {
      if (isGone()) throw new Error('the client is gone');
      const bytes = Math.min(end - at, STEP_BYTES - (at % STEP_BYTES));
      const saved = savedBytes();
      const begun = performance.now();
      await step(at, bytes);
      at += bytes;
      if (savedBytes() > saved) await setTimeout(REST * (performance.now() - begun));
      else await setImmediate();
    }
  })();
}
