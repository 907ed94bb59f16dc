/**
 * Does something with all of them at once. One that fails keeps none of the others from its end.
 * @throws what the first that failed has thrown, when nothing is under way any more
 */
export async function allOf<Item>(items: readonly Item[], work: (item: Item) => Promise<void>): Promise<void> {
  const begun = items.map(work);
  await Promise.allSettled(begun);
  await Promise.all(begun);
}
