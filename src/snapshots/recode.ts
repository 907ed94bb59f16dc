import type { DataKey } from '../encryption/data-key.ts';
import type { ObjectStore } from '../objects/object-store.ts';
import type { Patience } from '../objects/patience.ts';
import { asBlock, BLOCK_BYTES } from '../types/units.ts';
import type { Captured, CaptureProgress } from './capture.ts';
import { captureWhole } from './capture-whole.ts';
import { LEAF_BLOCKS } from './manifest-node.ts';
import type { SnapshotSource } from './snapshot-source.ts';

const BLOCKS_AT_ONCE = 65_536;

/** Stores a snapshot's bytes once more, under another key or none. */
export function recode(
  source: SnapshotSource,
  sizeBytes: number,
  store: ObjectStore,
  patience: Patience,
  key: DataKey | undefined,
  onProgress: (progress: CaptureProgress) => void,
): Promise<Captured> {
  const whole = {
    async blocks(from: number): Promise<number[]> {
      const blocks: number[] = [];
      for await (const { number, leaf } of source.manifest.leaves(Math.floor(from / LEAF_BLOCKS))) {
        for (const slot of leaf.keys()) {
          const block = number * LEAF_BLOCKS + slot;
          if (block >= from) blocks.push(block);
        }
        if (blocks.length >= BLOCKS_AT_ONCE) break;
      }
      return blocks;
    },
    async read(blocks: readonly number[], target: Buffer): Promise<void> {
      await Promise.all(
        blocks.map(async (block, index) => {
          const bytes = await source.read(asBlock(block));
          if (bytes === undefined) target.fill(0, index * BLOCK_BYTES, (index + 1) * BLOCK_BYTES);
          else target.set(bytes, index * BLOCK_BYTES);
        }),
      );
    },
  };
  return captureWhole(whole, sizeBytes, store, patience, key, onProgress);
}
