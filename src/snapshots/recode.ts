import type { DataKey } from '../encryption/data-key.ts';
import type { ObjectStore } from '../objects/object-store.ts';
import type { Patience } from '../objects/patience.ts';
import { asBlock, BLOCK_BYTES, blockCount } from '../types/units.ts';
import { type Captured, type CaptureProgress, capture } from './capture.ts';
import { Manifest } from './manifest.ts';
import { LEAF_BLOCKS } from './manifest-node.ts';
import type { SnapshotSource } from './snapshot-source.ts';
import { NO_JOURNAL } from './upload-journal.ts';

const BLOCKS_AT_ONCE = 65_536;

/**
 * Stores a snapshot's bytes once more, under another key or none. Cut short, it begins again: what it had stored is
 * collected.
 */
export function recode(
  source: SnapshotSource,
  sizeBytes: number,
  store: ObjectStore,
  patience: Patience,
  key: DataKey | undefined,
  onProgress: (progress: CaptureProgress) => void,
): Promise<Captured> {
  return capture({
    cut: {
      async changed(from) {
        const blocks: number[] = [];
        for await (const { number, leaf } of source.manifest.leaves(Math.floor(from / LEAF_BLOCKS))) {
          for (const slot of leaf.keys()) {
            const block = number * LEAF_BLOCKS + slot;
            if (block >= from) blocks.push(block);
          }
          if (blocks.length >= BLOCKS_AT_ONCE) break;
        }
        return { blocks, compareAll: false };
      },
      async read(blocks, target) {
        await Promise.all(
          blocks.map(async (block, index) => {
            const bytes = await source.read(asBlock(block));
            if (bytes === undefined) target.fill(0, index * BLOCK_BYTES, (index + 1) * BLOCK_BYTES);
            else target.set(bytes, index * BLOCK_BYTES);
          }),
        );
        return blocks.map(() => true);
      },
      captured: () => undefined,
    },
    blocks: blockCount(sizeBytes),
    store,
    base: new Manifest(store, undefined, patience, key),
    journal: NO_JOURNAL,
    patience,
    onProgress,
    signal: new AbortController().signal,
  });
}
