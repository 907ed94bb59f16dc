/**
 * Keeps what was asked for last, by the order of a Map: the key becomes its newest, and the oldest go.
 * @param most how many may stay
 * @returns those that went
 */
export function keepLatest<Key, Value>(kept: Map<Key, Value>, most: number, key: Key, value: Value): Value[] {
  kept.delete(key);
  kept.set(key, value);
  const gone: Value[] = [];
  for (const [oldest, dropped] of kept) {
    if (kept.size <= most) break;
    kept.delete(oldest);
    gone.push(dropped);
  }
  return gone;
}
