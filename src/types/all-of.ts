/**
 * Does something with all of them at once. One that fails keeps none of the others from its end.
 * @returns what came of each, in their order
 * @throws what the first that failed has thrown, when nothing is under way any more
 */
export async function allOf<Item, Answer>(
  items: readonly Item[],
  work: (item: Item) => Promise<Answer>,
): Promise<Answer[]> {
  const begun = items.map(work);
  await Promise.allSettled(begun);
  return Promise.all(begun);
}
