import type { BlockIndex } from '../types/units.ts';

/** Where the blocks of a restored volume come from: a completed snapshot. */
export interface BlockSource {
  /**
   * @returns the block's 512 KiB, which are there until the event loop's next turn; undefined when the snapshot has none,
   *   which means zeroes
   * @throws when the block cannot be had, or is not what the snapshot says it is: wrong bytes are never returned
   */
  read(block: BlockIndex): Promise<Uint8Array | undefined>;

  /**
   * All blocks that the snapshot has from `from` on, in order; what lies between two of them is zeroes. A block's bytes
   * are there until the next one is asked for.
   */
  blocks(from: BlockIndex): AsyncIterable<{ block: BlockIndex; bytes: Uint8Array }>;
}

/** @throws when a volume that needs its snapshot was opened without one */
export function requireSource(source: BlockSource | undefined, directory: string): BlockSource {
  if (source === undefined) throw new Error(`${directory} still needs blocks from its snapshot, and none was named`);
  return source;
}
