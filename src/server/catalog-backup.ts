import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { backup, DatabaseSync } from 'node:sqlite';
import { promisify } from 'node:util';
import { zstdCompress, zstdDecompress } from 'node:zlib';
import type { ObjectStore } from '../objects/object-store.ts';

const compress = promisify(zstdCompress);
const decompress = promisify(zstdDecompress);
const PREFIX = 'catalog/';
const KEPT = 24;
const MAX_CATALOG_BYTES = 8 * 1024 ** 3;
/** What must not leave the machine, and is made anew. */
const OWN_SECRETS = ['ebs-tokens'];

/** Saves a consistent copy of the catalog to the object store, and keeps the latest of them. */
export async function saveCatalog(catalogPath: string, store: ObjectStore, now: Date): Promise<string> {
  const directory = mkdtempSync(path.join(path.dirname(catalogPath), 'catalog-copy-'));
  try {
    const copy = path.join(directory, 'catalog.sqlite');
    const source = new DatabaseSync(catalogPath, { readOnly: true });
    try {
      // SQLite's own backup: pages are copied while the server goes on, and what changes meanwhile is copied again.
      await backup(source, copy);
    } finally {
      source.close();
    }
    const cleaned = new DatabaseSync(copy);
    for (const name of OWN_SECRETS) cleaned.prepare('delete from secrets where name = ?').run(name);
    cleaned.exec('PRAGMA journal_mode = DELETE');
    cleaned.exec('VACUUM');
    cleaned.close();
    const key = `${PREFIX}${now.toISOString()}.sqlite.zst`;
    await store.put(key, [await compress(readFileSync(copy))]);
    const saved = await savedCatalogs(store);
    for (const old of saved.slice(0, Math.max(0, saved.length - KEPT))) await store.remove(old);
    return key;
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

/**
 * Brings the latest copy that can be read back, where there is no catalog.
 * @returns which (undefined where none was saved), and those after it that cannot be read, with the reason
 */
export async function fetchCatalog(
  catalogPath: string,
  store: ObjectStore,
): Promise<{ key: string | undefined; unreadable: { key: string; why: string }[] }> {
  const unreadable: { key: string; why: string }[] = [];
  for (const key of (await savedCatalogs(store)).reverse()) {
    const stored = await store.get(key);
    try {
      writeFileSync(catalogPath, await decompress(stored, { maxOutputLength: MAX_CATALOG_BYTES }), {
        mode: 0o600,
        flush: true,
      });
      return { key, unreadable };
    } catch (error) {
      unreadable.push({ key, why: (error as Error).message });
    }
  }
  return { key: undefined, unreadable };
}

/** Oldest first: the names are times. */
async function savedCatalogs(store: ObjectStore): Promise<string[]> {
  const keys: string[] = [];
  for await (const { key } of store.list(PREFIX)) keys.push(key);
  return keys.sort();
}
