import { eachUntilFailure } from '../types/each-until-failure.ts';

const REMOVALS_AT_ONCE = 16;

/** Removes objects one by one. @throws when one could not be removed; then nothing of it is under way any more */
export function removeEach(keys: readonly string[], remove: (key: string) => Promise<void>): Promise<void> {
  return eachUntilFailure(keys, REMOVALS_AT_ONCE, remove);
}
