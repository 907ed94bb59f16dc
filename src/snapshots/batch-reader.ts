import { asBlock } from '../types/units.ts';
import { BATCH_BYTES, bytesOf, type PlannedPiece } from './capture-plan.ts';
import type { CutReader } from './cut-reader.ts';
import type { SnapshotSource } from './snapshot-source.ts';

/** Pieces that are read, and go on, together. `finishes`: the leaf of which they are the last. */
export type PlannedBatch = { pieces: readonly PlannedPiece[]; finishes: number | undefined };

/** A piece whose bytes lie in the batch's `target`. `present`: false where the base has them, and they are not there. */
export type ReadPiece = { piece: PlannedPiece; bytes: Buffer; present: boolean };
export type ReadBatch = { pieces: ReadPiece[]; target: Buffer; finishes: number | undefined };

/** Of which the files have been read, and the volume's owner has been asked, who has not said yet what was local. */
type BegunBatch = PlannedBatch & { target: Buffer; local: Promise<boolean[]> };

/** As many as two captures have in use. */
const KEPT_TARGETS = 8;
/** They go round, from capture to capture: left to the garbage collector, they would pile up faster than it runs. */
const spareTargets: Buffer[] = [];

/** Reads a cut's batches, of which each is asked about while the one before is worked on. */
export class BatchReader {
  readonly #cut: CutReader;
  readonly #absentFrom: SnapshotSource | undefined;
  readonly #rest: () => Promise<void>;

  /**
   * @param absentFrom where the blocks are that the cut does not have, when that is not the base
   * @param rest waits, before each batch, for who has precedence
   */
  constructor(cut: CutReader, absentFrom: SnapshotSource | undefined, rest: () => Promise<void>) {
    this.#cut = cut;
    this.#absentFrom = absentFrom;
    this.#rest = rest;
  }

  /** In their order. When it ends, however it does, nothing is read any more. */
  async *read(batches: AsyncIterable<PlannedBatch>): AsyncGenerator<ReadBatch> {
    let before: BegunBatch | undefined;
    try {
      for await (const batch of batches) {
        // The answer comes while the caller is busy with the batch before; no rest does (as with inOrder): it would be none.
        const begun = await this.#begin(batch);
        const last = before;
        before = begun;
        if (last !== undefined) yield await this.#finish(last);
      }
      if (before !== undefined) yield await this.#finish(before);
    } finally {
      // Into a buffer, and from files, that are others' next.
      await before?.local.catch(() => undefined);
    }
  }

  /** The caller needs the batch no more. */
  release(target: Buffer): void {
    if (spareTargets.length < KEPT_TARGETS) spareTargets.push(target);
  }

  async #begin({ pieces, finishes }: PlannedBatch): Promise<BegunBatch> {
    await this.#rest();
    const target = spareTargets.pop() ?? Buffer.from(new SharedArrayBuffer(BATCH_BYTES));
    const local = this.#cut.read(pieces, target);
    // Until its turn comes, a failure must not count as one that no one handles.
    local.catch(() => undefined);
    return { pieces, finishes, target, local };
  }

  async #finish({ pieces, finishes, target, local }: BegunBatch): Promise<ReadBatch> {
    const present = await local;
    const read: ReadPiece[] = [];
    let at = 0;
    for (const [index, piece] of pieces.entries()) {
      const bytes = target.subarray(at, at + bytesOf(piece));
      at += bytes.length;
      read.push({ piece, bytes, present: present[index] || (await this.#fetchAbsent(piece.block, bytes)) });
    }
    return { pieces: read, target, finishes };
  }

  /** @returns false where the base has the block */
  async #fetchAbsent(block: number, target: Buffer): Promise<boolean> {
    if (this.#absentFrom === undefined) return false;
    await this.#absentFrom.readInto([asBlock(block)], target);
    return true;
  }
}
