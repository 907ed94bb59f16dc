import { eachUntilFailure } from '../types/each-until-failure.ts';
import type { ObjectStore } from './object-store.ts';

const REMOVALS_AT_ONCE = 16;
/** As many as S3 removes, and lists, with one request. */
const LISTED_AT_ONCE = 1000;

/** Removes objects one by one. @throws when one could not be removed; then nothing of it is under way any more */
export function removeEach(keys: readonly string[], remove: (key: string) => Promise<void>): Promise<void> {
  return eachUntilFailure(keys, REMOVALS_AT_ONCE, remove);
}

/** Removes what is listed in a folder, where that is nothing but how keys begin. */
export async function removeListed(store: Pick<ObjectStore, 'list' | 'remove'>, folder: string): Promise<void> {
  let keys: string[] = [];
  for await (const { key } of store.list(`${folder}/`)) {
    keys.push(key);
    if (keys.length < LISTED_AT_ONCE) continue;
    await store.remove(keys);
    keys = [];
  }
  await store.remove(keys);
}
