/** What was not used between two looks is given back. */
const LOOK_MILLISECONDS = 2_000;

/** Memory that a connection keeps for its requests, or for its answers. */
export type KeptMemory = {
  /** Set whenever it is used. */
  wasUsed: boolean;
  /** Lets the kernel have what is not in use at the moment. */
  empty: () => void;
};

const kept = new Map<KeptMemory, 'used' | 'empty'>();
let looking: NodeJS.Timeout | undefined;

/**
 * A connection that keeps silent needs no memory: a thousand that have each sent a large request once would have a gigabyte. When it
 * goes on, its memory comes back page by page, which takes a fraction of a millisecond.
 */
export function emptyWhenIdle(memories: readonly KeptMemory[], closed: Promise<void>): void {
  for (const memory of memories) kept.set(memory, 'used');
  looking ??= setInterval(look, LOOK_MILLISECONDS).unref();
  void closed.then(() => {
    for (const memory of memories) {
      kept.delete(memory);
      // To V8 it is garbage now, but it may be long until it looks.
      memory.empty();
    }
  });
}

function look(): void {
  for (const [memory, state] of kept) {
    if (memory.wasUsed) {
      memory.wasUsed = false;
      kept.set(memory, 'used');
    } else if (state === 'used') {
      memory.empty();
      kept.set(memory, 'empty');
    }
  }
  if (kept.size > 0) return;
  clearInterval(looking);
  looking = undefined;
}
