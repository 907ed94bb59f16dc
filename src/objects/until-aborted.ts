import type { ObjectStore } from './object-store.ts';

/** Requests under way get so long to end by themselves: most do, and then leave nothing half done. */
const MOMENT_MILLISECONDS = 1000;

/**
 * The same store for someone who may be told to stop: he waits a moment then, and no longer, however long a store takes
 * that does not answer. What he had asked for may still come to be: of a put, the whole object or nothing.
 * @returns a store whose requests fail with the signal's reason, but for lists
 */
export function untilAborted(store: ObjectStore, signal: AbortSignal): ObjectStore {
  const within = async <Answer>(ask: () => Promise<Answer>): Promise<Answer> => {
    signal.throwIfAborted();
    const aborted = Promise.withResolvers<never>();
    let timer: NodeJS.Timeout | undefined;
    const abort = (): void => {
      timer = setTimeout(() => aborted.reject(signal.reason), MOMENT_MILLISECONDS);
    };
    signal.addEventListener('abort', abort);
    try {
      return await Promise.race([ask(), aborted.promise]);
    } finally {
      clearTimeout(timer);
      signal.removeEventListener('abort', abort);
    }
  };
  return {
    url: store.url,
    put: (key, pieces) => within(() => store.put(key, pieces)),
    get: (key) => within(() => store.get(key)),
    getRange: (key, offset, length) => within(() => store.getRange(key, offset, length)),
    list: (prefix) => store.list(prefix),
    remove: (keys) => within(() => store.remove(keys)),
    removeFolder: (folder) => within(() => store.removeFolder(folder)),
    removeUnfinished: () => within(() => store.removeUnfinished()),
  };
}
