/**
 * Keeps what was asked for last, by the order of a Map: the key becomes its newest, and the oldest go.
 * @param most how many may stay
 */
export function keepLatest<Key, Value>(kept: Map<Key, Value>, most: number, key: Key, value: Value): void {
  kept.delete(key);
  kept.set(key, value);
  for (const oldest of kept.keys()) {
    if (kept.size <= most) break;
    kept.delete(oldest);
  }
}
