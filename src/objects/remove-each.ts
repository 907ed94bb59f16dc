import { allOf } from '../types/all-of.ts';

const REMOVALS_AT_ONCE = 16;

/** Removes one by one, some at once. After a failure no more are begun; it is told when those under way have ended. */
export function removeEach(keys: readonly string[], remove: (key: string) => Promise<void>): Promise<void> {
  const left = [...keys];
  return allOf(Array.from({ length: Math.min(REMOVALS_AT_ONCE, left.length) }), async () => {
    try {
      for (let key = left.pop(); key !== undefined; key = left.pop()) await remove(key);
    } catch (error) {
      left.length = 0;
      throw error;
    }
  });
}
