import { existsSync, rmSync } from 'node:fs';
import { pathToFileURL } from 'node:url';
import type { BegunImport } from '../admin/import-snapshot.ts';
import type { ObjectStore } from '../objects/object-store.ts';
import { openObjectStore } from '../objects/open-store.ts';
import { realPatience } from '../objects/patience.ts';
import { exportImage, importImage } from '../snapshots/image-file.ts';
import { getSnapshotRecord } from '../snapshots/snapshot-record.ts';
import { SnapshotSource } from '../snapshots/snapshot-source.ts';
import { BLOCK_BYTES, formatBytes, GIB, type Sha256 } from '../types/units.ts';
import { NodeDisk } from '../volumes/node-disk.ts';
import { chosenDataDir, connectToServer, runningServer } from './connection.ts';
import { type KeyFlags, SnapshotKeys } from './keys.ts';
import { ByteProgress, print } from './output.ts';

const PATIENCE_MILLISECONDS = 60_000;

export type StoreFlags = KeyFlags & { objectStore?: string; json?: boolean };

/** The store of a flag, of the server that runs, or the default below the data directory. */
export function chosenStore(flags: StoreFlags): Promise<ObjectStore> {
  if (flags.objectStore !== undefined) return openObjectStore(flags.objectStore);
  const dataDir = chosenDataDir(flags);
  try {
    return openObjectStore(runningServer(dataDir).objectStore);
  } catch {
    const url = process.env.CLEANCUT_OBJECT_STORE ?? pathToFileURL(`${dataDir}/objects`).href;
    return openObjectStore(url);
  }
}

/** Writes a snapshot into a sparse raw file, straight from the object store: no server is needed. */
export async function exportSnapshot(snapshotId: string, file: string, flags: StoreFlags): Promise<void> {
  if (existsSync(file)) throw new Error(`${file} is there already; an export never writes over a file`);
  // Node's own four threads would have to read, decompress and write in turns. Read when the first of them is begun.
  process.env.UV_THREADPOOL_SIZE ??= '16';
  const store = await chosenStore(flags);
  const record = await getSnapshotRecord(store, snapshotId);
  const key = await new SnapshotKeys(flags, store).keyOf(record);
  const source = SnapshotSource.of(store, record.root as Sha256, realPatience(PATIENCE_MILLISECONDS), key);
  const dataBytes = record.dataBlocks * BLOCK_BYTES;
  const progress = new ByteProgress(snapshotId, dataBytes);
  const begun = performance.now();
  try {
    await exportImage(source, file, record.volumeSizeGiB * GIB, (done) => progress.set(done));
  } catch (error) {
    // Half an image must not be taken for a whole one. (One that has come there meanwhile is someone else's.)
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') rmSync(file, { force: true });
    throw error;
  }
  progress.end();
  const seconds = (performance.now() - begun) / 1000;
  print(
    flags.json,
    { snapshotId, file, sizeBytes: record.volumeSizeGiB * GIB, dataBytes, seconds },
    ['snapshot', 'file', 'size', 'data', 'took'],
    [[snapshotId, file, `${record.volumeSizeGiB} GiB`, formatBytes(dataBytes), `${seconds.toFixed(1)} s`]],
  );
}

/** Makes a snapshot of a raw file: its blocks go straight to the object store, the server records it. */
export async function importFile(
  file: string,
  flags: StoreFlags & { description?: string; encrypted?: boolean; kmsKey?: string },
): Promise<void> {
  const server = connectToServer(flags);
  const store = await chosenStore(flags);
  const image = new NodeDisk().open(file, 'read-only');
  const sizeGiB = Math.max(1, Math.ceil(image.size() / GIB));
  const description = flags.description ?? `Imported from ${file}`;
  const { snapshotId, encryption } = await server.ask<BegunImport>('begin-import', {
    sizeGiB,
    description,
    encrypted: flags.encrypted === true || flags.kmsKey !== undefined ? true : undefined,
    kmsKeyId: flags.kmsKey,
  });
  const progress = new ByteProgress(file, image.size());
  try {
    const key = await new SnapshotKeys(flags, store).keyOf({ encryption });
    const captured = await importImage(
      image,
      sizeGiB * GIB,
      store,
      realPatience(PATIENCE_MILLISECONDS),
      key,
      ({ doneBlocks, totalBlocks }) => progress.set((doneBlocks / Math.max(1, totalBlocks)) * image.size()),
    );
    const { root, dataBlocks, storedBytes } = captured;
    await server.ask('finish-import', { snapshotId, root, dataBlocks, storedBytes });
    progress.end();
    print(
      flags.json,
      { snapshotId, sizeGiB, dataBytes: dataBlocks * BLOCK_BYTES, storedBytes },
      ['snapshot', 'size', 'data', 'stored'],
      [[snapshotId, `${sizeGiB} GiB`, formatBytes(dataBlocks * BLOCK_BYTES), formatBytes(storedBytes)]],
    );
  } catch (error) {
    // Where the server is away, too, it ends by itself after a day.
    await server.ask('fail-import', { snapshotId, reason: (error as Error).message }).catch(() => undefined);
    throw error;
  } finally {
    image.close();
  }
}
