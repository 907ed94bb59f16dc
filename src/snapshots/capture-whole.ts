import type { DataKey } from '../encryption/data-key.ts';
import { ALL_PAGES } from '../types/page-mask.ts';
import { blockCount } from '../types/units.ts';
import { type Capture, type Captured, capture } from './capture.ts';
import type { CutReader } from './cut-reader.ts';
import { Manifest } from './manifest.ts';
import { NO_JOURNAL } from './upload-journal.ts';

/** What is stored whole, from something that stays as it is: a file, another snapshot. */
export type Whole = {
  /** Those of its blocks that may hold data, from `from` on; none is the end. */
  blocks: (from: number) => number[] | Promise<number[]>;
  /** Reads blocks into `target`, 512 KiB each. */
  read: (blocks: readonly number[], target: Buffer) => void | Promise<void>;
};

/** Where and how it is stored; see Capture. `key` encrypts it. */
export type Storing = Pick<Capture, 'store' | 'patience' | 'onProgress' | 'signal' | 'rooms' | 'rest' | 'encode'> & {
  key: DataKey | undefined;
};

/** Stores a snapshot that has no base. Cut short, it begins again: what it had stored is collected. */
export function captureWhole(whole: Whole, sizeBytes: number, { key, ...storing }: Storing): Promise<Captured> {
  const cut: CutReader = {
    async changed(from) {
      const blocks = await whole.blocks(from);
      return { blocks, more: blocks.length > 0, compareAll: false };
    },
    written: async (blocks) => blocks.map(() => ALL_PAGES),
    async read(pieces, target) {
      await whole.read(
        pieces.map(({ block }) => block),
        target,
      );
      return pieces.map(() => true);
    },
    // Nothing is kept for it that could be let go.
    captured: () => undefined,
  };
  return capture({
    cut,
    blocks: blockCount(sizeBytes),
    base: new Manifest(storing.store, undefined, storing.patience, key),
    journal: NO_JOURNAL,
    ...storing,
  });
}
