import { asBlock } from '../types/units.ts';
import type { Captured } from './capture.ts';
import { captureWhole, type Storing } from './capture-whole.ts';
import { LEAF_BLOCKS } from './manifest-node.ts';
import { SnapshotSource } from './snapshot-source.ts';

const BLOCKS_AT_ONCE = 65_536;

/** Stores a snapshot's bytes once more, under another key or none. */
export function recode(source: SnapshotSource, sizeBytes: number, storing: Storing): Promise<Captured> {
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
      await source.readInto(blocks.map(asBlock), target);
    },
  };
  return captureWhole(whole, sizeBytes, storing);
}

/**
 * The same, for bytes that will not be where they were: a store that has lied about what it took must be found out before.
 * @throws DamagedObjectError when what was stored is not there, or is something else
 */
export async function recodeAndRead(source: SnapshotSource, sizeBytes: number, storing: Storing): Promise<Captured> {
  const captured = await recode(source, sizeBytes, storing);
  const { store, patience, key, rest, signal } = storing;
  for await (const _ of SnapshotSource.of(store, captured.root, patience, key).blocks(asBlock(0))) {
    signal.throwIfAborted();
    await rest?.();
  }
  return captured;
}
