import { existsSync } from 'node:fs';
import { pathToFileURL } from 'node:url';
import type { AdminClient } from '../admin/admin-client.ts';
import type { BegunImport } from '../admin/import-snapshot.ts';
import type { ObjectStore } from '../objects/object-store.ts';
import { openObjectStore } from '../objects/open-store.ts';
import { realPatience } from '../objects/patience.ts';
import { untilAborted } from '../objects/until-aborted.ts';
import type { CaptureProgress } from '../snapshots/capture.ts';
import { exportImage, importImage } from '../snapshots/image-file.ts';
import { SnapshotSource } from '../snapshots/snapshot-source.ts';
import { BLOCK_BYTES, formatBytes, GIB } from '../types/units.ts';
import { NodeDisk } from '../volumes/node-disk.ts';
import { chosenDataDir, connectToServer, runningServer } from './connection.ts';
import { reportingImport } from './import-reports.ts';
import { interruptible } from './interruptible.ts';
import { type KeyFlags, SnapshotKeys } from './keys.ts';
import { namedSnapshot, placeOf } from './named-snapshot.ts';
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
  if (existsSync(`${file}.partial`))
    throw new Error(`${file}.partial is there: another export writes it, or one was killed; remove it then`);
  // Node's own four threads would have to read, decompress and write in turns. Read when the first of them is begun.
  process.env.UV_THREADPOOL_SIZE ??= '16';
  const store = await chosenStore(flags);
  const record = await namedSnapshot(store, snapshotId);
  const place = await placeOf(store, record);
  const key = await new SnapshotKeys(flags, store).keyOf(record);
  const dataBytes = record.dataBlocks * BLOCK_BYTES;
  const progress = new ByteProgress(snapshotId, dataBytes);
  const begun = performance.now();
  const size = record.volumeSizeGiB * GIB;
  await interruptible((signal) => {
    const patience = realPatience(PATIENCE_MILLISECONDS, undefined, signal);
    const source = SnapshotSource.of(untilAborted(place, signal), record.root, patience, key);
    return progress.during(() => exportImage(source, file, size, (done) => progress.set(done)));
  });
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
  const wish = {
    sizeGiB,
    description,
    encrypted: flags.encrypted === true || flags.kmsKey !== undefined ? true : undefined,
    kmsKeyId: flags.kmsKey,
  };
  const { snapshotId, captured } = await interruptible(async (signal) => {
    const { snapshotId, encryption } = await server.ask<BegunImport>('begin-import', wish);
    const progress = new ByteProgress(file, image.size());
    const connect = (): AdminClient => connectToServer(flags);
    try {
      const captured = await reportingImport({ connect, snapshotId, signal }, async (signal, report) => {
        const key = await new SnapshotKeys(flags, store).keyOf({ encryption });
        const patience = realPatience(PATIENCE_MILLISECONDS, undefined, signal);
        const onProgress = (done: CaptureProgress): void => {
          report(done);
          progress.set((done.doneBlocks / Math.max(1, done.totalBlocks)) * image.size());
        };
        const storing = { store: untilAborted(store, signal), patience, key, onProgress, signal };
        return progress.during(() => importImage(image, sizeGiB * GIB, storing));
      });
      return { snapshotId, captured };
    } finally {
      image.close();
    }
  });
  const { dataBlocks, storedBytes } = captured;
  print(
    flags.json,
    { snapshotId, sizeGiB, dataBytes: dataBlocks * BLOCK_BYTES, storedBytes },
    ['snapshot', 'size', 'data', 'stored'],
    [[snapshotId, `${sizeGiB} GiB`, formatBytes(dataBlocks * BLOCK_BYTES), formatBytes(storedBytes)]],
  );
}
