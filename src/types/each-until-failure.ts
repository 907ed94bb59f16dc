import { allOf } from './all-of.ts';

/**
 * Does something with each, some at once, in no promised order. After a failure no more are begun.
 * @throws the first failure, when those under way have ended
 */
export async function eachUntilFailure<Item>(
  items: readonly Item[],
  atOnce: number,
  work: (item: Item) => Promise<void>,
): Promise<void> {
  const left = [...items];
  await allOf(Array.from({ length: Math.min(atOnce, left.length) }), async () => {
    try {
      for (let item = left.pop(); item !== undefined; item = left.pop()) await work(item);
    } catch (error) {
      left.length = 0;
      throw error;
    }
  });
}
