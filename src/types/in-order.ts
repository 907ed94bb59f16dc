type Begun<Result> = { result: Promise<Result>; weight: number };

/**
 * Does a task for each item, some of them at once; the results come in the order of the items. What it is for is far away:
 * one by one, each would cost a round trip. Who takes no more results has a few begun in vain.
 * @param room how much may be under way, the result that the caller is busy with included; one task always may
 * @param weigh how much of the room an item takes
 * @throws what a task throws, or the items do, when the results before it have been taken
 */
export async function* inOrder<Item, Result>(
  items: Iterable<Item> | AsyncIterable<Item>,
  room: number,
  task: (item: Item) => Promise<Result>,
  weigh: (item: Item) => number = () => 1,
): AsyncGenerator<Result> {
  const begun: Begun<Result>[] = [];
  let taken = 0;
  for await (const next of untilFailure(items)) {
    const weight = next.kind === 'failure' ? room : weigh(next.item);
    for (let oldest = begun[0]; oldest !== undefined && taken + weight > room; oldest = begun[0]) {
      yield await oldest.result;
      begun.shift();
      taken -= oldest.weight;
    }
    if (next.kind === 'failure') throw next.error;
    const result = task(next.item);
    // Until its turn comes, a failure must not count as one that no one handles.
    result.catch(() => undefined);
    begun.push({ result, weight });
    taken += weight;
  }
  for (const { result } of begun) yield await result;
}

type Next<Item> = { kind: 'item'; item: Item } | { kind: 'failure'; error: unknown };

/** The items, and in the end, where it is one, what went wrong. */
async function* untilFailure<Item>(items: Iterable<Item> | AsyncIterable<Item>): AsyncGenerator<Next<Item>> {
  try {
    for await (const item of items) yield { kind: 'item', item };
  } catch (error) {
    yield { kind: 'failure', error };
  }
}
