import { BLOCK_BYTES } from '../types/units.ts';

const STEP_BYTES = 64 * BLOCK_BYTES;

/** Goes over a range in steps, with turns for others between: a request for gigabytes does not hold them up. */
export function inSteps(
  offset: number,
  length: number,
  step: (offset: number, length: number) => void | Promise<void>,
): void | Promise<void> {
  if (length <= STEP_BYTES) return step(offset, length);
  return (async () => {
    for (let done = 0; done < length; ) {
      const at = offset + done;
      const bytes = Math.min(length - done, STEP_BYTES - (at % STEP_BYTES));
      await step(at, bytes);
      done += bytes;
      await new Promise(setImmediate);
    }
  })();
}
