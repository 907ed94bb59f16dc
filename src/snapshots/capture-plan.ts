import { ALL_PAGES, countPages, isSameMask, type PageMask, unionOf } from '../types/page-mask.ts';
import { BLOCK_BYTES, PAGE_BYTES, type Sha256 } from '../types/units.ts';
import type { Piece } from '../volumes/cut-files.ts';
import type { PagedBitmap } from '../volumes/paged-bitmap.ts';
import type { BlockLocation } from './block-encoding.ts';
import { LEAF_BLOCKS, type Leaf } from './manifest-node.ts';

/** Half a block: beyond that a patch saves too little to be fetched besides the block it patches. */
const MOST_PAGES = 64;
/**
 * A quarter: a patch has what all snapshots since the whole block changed, and so grows from one to the next. Where it is
 * larger than this, the block is stored whole, and the next patch begins small.
 */
const MOST_PAGES_GROWN = 32;

/** Memory for what is read at once. */
export const BATCH_BYTES = 8 * BLOCK_BYTES;
const BATCH_PIECES = 64;

/** What is to be read of a block: all of it, or the pages that its patch is to have. */
export type PlannedPiece = Piece & {
  before: BlockLocation | undefined;
  isPatch: boolean;
};

/**
 * How blocks of one leaf are to be stored.
 * @param written for each block, the pages that may differ from the base
 * @param base the base's leaf
 */
export function planPieces(blocks: readonly number[], written: readonly PageMask[], base: Leaf): PlannedPiece[] {
  return blocks.map((block, index) => {
    const before = base.get(block % LEAF_BLOCKS);
    const pages = before?.patch === undefined ? written[index] : unionOf(written[index], before.patch.pages);
    const count = countPages(pages);
    const most = before?.patch === undefined ? MOST_PAGES : MOST_PAGES_GROWN;
    // Zeroes are not patched: that would want a record of their own.
    const isPatch = before !== undefined && count > 0 && count <= most;
    return { block, pages: isPatch ? pages : ALL_PAGES, before, isPatch };
  });
}

/** What is read and encoded together: of at most BATCH_BYTES. */
export function* batchesOf(pieces: readonly PlannedPiece[]): Generator<PlannedPiece[]> {
  let batch: PlannedPiece[] = [];
  let bytes = 0;
  for (const piece of pieces) {
    const more = bytesOf(piece);
    if (batch.length === BATCH_PIECES || bytes + more > BATCH_BYTES) {
      yield batch;
      batch = [];
      bytes = 0;
    }
    batch.push(piece);
    bytes += more;
  }
  if (batch.length > 0) yield batch;
}

export function bytesOf({ pages }: Piece): number {
  return countPages(pages) * PAGE_BYTES;
}

/** Whether the base has just that, as what was read hashes to. */
export function isInBase({ before, isPatch, pages }: PlannedPiece, digest: Sha256): boolean {
  if (before === undefined) return false;
  const { whole, patch } = before;
  if (!isPatch) return patch === undefined && whole.sha256 === digest;
  return patch !== undefined && patch.record.sha256 === digest && isSameMask(patch.pages, pages);
}

/** A leaf, and which of its blocks are to be captured, ascending. */
export type WantedLeaf = { leaf: number; blocks: readonly number[] };

export function* wantedLeaves(wanted: PagedBitmap): Generator<WantedLeaf> {
  for (let block = wanted.nextSet(0); block !== -1; ) {
    const leaf = leafOf(block);
    const blocks: number[] = [];
    for (; block !== -1 && leafOf(block) === leaf; block = wanted.nextSet(block + 1)) blocks.push(block);
    yield { leaf, blocks };
  }
}

export function leafOf(block: number): number {
  return Math.floor(block / LEAF_BLOCKS);
}
