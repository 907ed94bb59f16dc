import { setTimeout } from 'node:timers/promises';
import { FinalError } from './object-store.ts';

export type Patience = {
  /** Total time (milliseconds) after which the last error is thrown. */
  milliseconds: number;
  now: () => number;
  sleep: (milliseconds: number) => Promise<void>;
  random: () => number;
  /** Told of each failure that will be tried again. */
  onRetry?: (error: Error, attempt: number) => void;
};

const FIRST_PAUSE_MILLISECONDS = 100;
const LONGEST_PAUSE_MILLISECONDS = 20_000;

/**
 * Tries a request to the object store again, with exponential backoff and full jitter, until it works, the patience is
 * over, or the failure is one that will not go away.
 */
export async function patiently<Answer>(patience: Patience, request: () => Promise<Answer>): Promise<Answer> {
  const begun = patience.now();
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await request();
    } catch (error) {
      if (error instanceof FinalError) throw error;
      const longest = Math.min(LONGEST_PAUSE_MILLISECONDS, FIRST_PAUSE_MILLISECONDS * 2 ** attempt);
      const pause = longest * (0.5 + 0.5 * patience.random());
      if (patience.now() + pause - begun > patience.milliseconds) throw error;
      patience.onRetry?.(error as Error, attempt);
      await patience.sleep(pause);
    }
  }
}

/** Patience by the real clock. @param signal ends a pause with an error */
export function realPatience(milliseconds: number, onRetry?: Patience['onRetry'], signal?: AbortSignal): Patience {
  return {
    milliseconds,
    now: () => performance.now(),
    sleep: (time) => setTimeout(time, undefined, { signal }),
    random: Math.random,
    ...(onRetry === undefined ? {} : { onRetry }),
  };
}
