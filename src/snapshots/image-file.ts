import { type FileHandle, open } from 'node:fs/promises';
import type { DataKey } from '../encryption/data-key.ts';
import type { ObjectStore } from '../objects/object-store.ts';
import type { Patience } from '../objects/patience.ts';
import { asBlock, BLOCK_BYTES } from '../types/units.ts';
import type { DiskFile } from '../volumes/disk.ts';
import type { Captured, CaptureProgress } from './capture.ts';
import { captureWhole } from './capture-whole.ts';
import type { SnapshotSource } from './snapshot-source.ts';

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
  const file: FileHandle = await open(path, 'wx');
  try {
    await file.truncate(sizeBytes);
    let done = 0;
    for await (const { block, bytes } of source.blocks(asBlock(0))) {
      const length = Math.min(BLOCK_BYTES, sizeBytes - block * BLOCK_BYTES);
      await file.write(bytes, 0, length, block * BLOCK_BYTES);
      done += length;
      onProgress(done);
    }
    await file.sync();
  } finally {
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
