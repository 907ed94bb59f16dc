import type { PageMask } from '../types/page-mask.ts';
import type { ChangedBlocks } from '../volumes/copy-before-write.ts';
import type { Piece } from '../volumes/cut-files.ts';

/** A cut as the pipeline sees it. */
export interface CutReader {
  /**
   * Blocks that may differ from the base, ascending from `from`, and whether there may be `more` of them behind the last.
   * `compareAll`: they are all that hold data, and what the base has beyond them must be looked at too.
   */
  changed(from: number): Promise<ChangedBlocks>;
  /** For each of the blocks, the pages that may differ from the base's. */
  written(blocks: readonly number[]): Promise<readonly PageMask[]>;
  /**
   * Reads pieces of blocks into `target`, one after the other. The next may be asked for before this one has come.
   * @returns for each whether it was read; one that was not is as in the base
   */
  read(pieces: readonly Piece[], target: Buffer): Promise<boolean[]>;
  /** These blocks are safe; the volume need not keep them. */
  captured(blocks: readonly number[]): void;
}
