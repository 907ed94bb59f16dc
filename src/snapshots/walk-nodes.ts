import { NODES_AT_ONCE } from './manifest.ts';

/**
 * Visits nodes, and all that lie below them, some at once and in no order: one by one, the nodes of a hundred thousand
 * snapshots in a store that answers in tens of milliseconds would take hours.
 * @param visit answers with the nodes that are to be visited because of this one; whoever is reached in several ways is
 *   visited as often
 * @throws the first failure, when all visits have ended; none is begun after it
 */
export async function walkNodes<Node>(
  nodes: readonly Node[],
  visit: (node: Node) => Promise<readonly Node[]>,
): Promise<void> {
  const waiting = [...nodes];
  const visitors = new Set<Promise<void>>();
  let failure: { error: unknown } | undefined;
  const visitAll = async (): Promise<void> => {
    for (let node = waiting.pop(); node !== undefined; node = waiting.pop()) {
      const children = await visit(node);
      if (failure !== undefined) return;
      waiting.push(...children);
      begin();
    }
  };
  /** As many visitors as there is work for. */
  const begin = (): void => {
    for (let more = Math.min(waiting.length, NODES_AT_ONCE - visitors.size); more > 0; more -= 1) {
      const visitor = visitAll()
        .catch((error: unknown) => {
          failure ??= { error };
          waiting.length = 0;
        })
        .finally(() => visitors.delete(visitor));
      visitors.add(visitor);
    }
  };
  begin();
  while (visitors.size > 0) await Promise.race(visitors);
  if (failure !== undefined) throw failure.error;
}
