import type { ObjectStore } from './object-store.ts';

/** A folder of a store, which is a store of its own. */
export function folderOf(store: ObjectStore, folder: string): ObjectStore {
  const prefix = `${folder}/`;
  return {
    url: `${store.url} (${folder})`,
    put: (key, pieces) => store.put(`${prefix}${key}`, pieces),
    get: (key) => store.get(`${prefix}${key}`),
    getRange: (key, offset, length) => store.getRange(`${prefix}${key}`, offset, length),
    async *list(keys) {
      for await (const { key, bytes } of store.list(`${prefix}${keys}`)) yield { key: key.slice(prefix.length), bytes };
    },
    remove: (keys) => store.remove(keys.map((key) => `${prefix}${key}`)),
    removeFolder: (inner) => store.removeFolder(`${prefix}${inner}`),
    removeUnfinished: () => store.removeUnfinished(),
  };
}
