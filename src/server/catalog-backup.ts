import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import { Worker } from 'node:worker_threads';
import { zstdDecompress } from 'node:zlib';
import type { ObjectStore } from '../objects/object-store.ts';
import { patiently, realPatience } from '../objects/patience.ts';
import type { CopyOrder } from './catalog-copy.ts';

const decompress = promisify(zstdDecompress);
const PREFIX = 'catalog/';
const KEPT = 24;
/** Directories beside the catalog in which copies are made. */
const UNFINISHED = 'catalog-copy-';
const MAX_CATALOG_BYTES = 8 * 1024 ** 3;
/** The next copy is an hour away. */
const PATIENCE_MILLISECONDS = 60_000;

/** At a start: what a server that was killed has left of its copies. */
export function removeUnfinishedCopies(catalogPath: string): void {
  const directory = path.dirname(catalogPath);
  for (const name of readdirSync(directory)) {
    if (name.startsWith(UNFINISHED)) rmSync(path.join(directory, name), { recursive: true, force: true });
  }
}

/** Saves a consistent copy of the catalog to the object store, and keeps the latest of them. */
export async function saveCatalog(catalogPath: string, store: ObjectStore, now: Date): Promise<string> {
  const directory = mkdtempSync(path.join(path.dirname(catalogPath), UNFINISHED));
  try {
    const compressed = path.join(directory, 'catalog.sqlite.zst');
    const order: CopyOrder = { catalog: catalogPath, plain: path.join(directory, 'catalog.sqlite'), compressed };
    const thread = new Worker(new URL('./catalog-copy.ts', import.meta.url), { workerData: order });
    await new Promise<void>((resolve, reject) => {
      thread.once('error', reject);
      thread.once('exit', () => resolve());
    });
    const key = `${PREFIX}${now.toISOString()}.sqlite.zst`;
    const bytes = await readFile(compressed);
    await patiently(realPatience(PATIENCE_MILLISECONDS), () => store.put(key, [bytes]));
    const saved = await savedCatalogs(store);
    await store.remove(saved.slice(0, Math.max(0, saved.length - KEPT)));
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
