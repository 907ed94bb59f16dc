import { open } from 'node:fs/promises';
import type { DataKey } from '../encryption/data-key.ts';
import { alignedBuffer, openDirectly } from '../objects/direct-write.ts';
import type { ObjectStore } from '../objects/object-store.ts';
import type { Patience } from '../objects/patience.ts';
import { asBlock, BLOCK_BYTES } from '../types/units.ts';
import type { DiskFile } from '../volumes/disk.ts';
import type { Captured, CaptureProgress } from './capture.ts';
import { captureWhole } from './capture-whole.ts';
import type { SnapshotSource } from './snapshot-source.ts';

const WRITES_AT_ONCE = 8;
const RUNS_AHEAD = 8;
const BLOCKS_AT_ONCE = 65_536;

/**
 * Writes a snapshot into a sparse raw file, as `dd` would have made it of the volume.
 * @throws when the file is there already: an image is never written over
 */
export async function exportImage(
  source: SnapshotSource,
  path: string,
  sizeBytes: number,
  onProgress: (doneBytes: number) => void,
): Promise<void> {
  // Without the page cache, where that can be: the image is written once, and may be larger than all memory.
  const file = (await openDirectly(path)) ?? (await open(path, 'wx', 0o600));
  const rooms = Array.from({ length: WRITES_AT_ONCE }, () => alignedBuffer(BLOCK_BYTES));
  const writing = new Set<Promise<void>>();
  let done = 0;
  const write = async (block: number, bytes: Buffer): Promise<void> => {
    const room = rooms.pop() ?? alignedBuffer(BLOCK_BYTES);
    bytes.copy(room);
    const { bytesWritten } = await file.write(room, 0, BLOCK_BYTES, block * BLOCK_BYTES);
    // A disk that has just filled takes a part, and calls it no error.
    if (bytesWritten < BLOCK_BYTES) throw new Error(`${path} took ${bytesWritten} bytes of a block of ${BLOCK_BYTES}`);
    rooms.push(room);
    done += BLOCK_BYTES;
    onProgress(done);
  };
  try {
    await file.truncate(sizeBytes);
    for await (const { block, bytes } of source.blocks(asBlock(0), RUNS_AHEAD)) {
      // One that has failed stays among them: the next look finds it.
      while (writing.size >= WRITES_AT_ONCE) await Promise.race(writing);
      const task = write(block, bytes).then(() => void writing.delete(task));
      task.catch(() => undefined);
      writing.add(task);
    }
    await Promise.all(writing);
    await file.sync();
  } finally {
    await Promise.allSettled(writing);
    await file.close();
  }
}

/** Stores a raw file's blocks; holes are not read. @param sizeBytes the snapshot's size, at least the file's @param key encrypts the snapshot */
export function importImage(
  file: DiskFile,
  sizeBytes: number,
  store: ObjectStore,
  patience: Patience,
  key: DataKey | undefined,
  onProgress: (progress: CaptureProgress) => void,
): Promise<Captured> {
  const whole = {
    blocks(from: number): number[] {
      const blocks: number[] = [];
      for (let at = from * BLOCK_BYTES; blocks.length < BLOCKS_AT_ONCE; ) {
        const data = at < file.size() ? file.nextData(at) : undefined;
        if (data === undefined) break;
        const block = Math.floor(data / BLOCK_BYTES);
        blocks.push(block);
        at = (block + 1) * BLOCK_BYTES;
      }
      return blocks;
    },
    read(blocks: readonly number[], target: Buffer): void {
      for (const [index, block] of blocks.entries()) {
        file.read(target, index * BLOCK_BYTES, BLOCK_BYTES, block * BLOCK_BYTES);
      }
    },
  };
  return captureWhole(whole, sizeBytes, store, patience, key, onProgress);
}
