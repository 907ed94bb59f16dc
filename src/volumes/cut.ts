import type { EpochNumber } from '../types/units.ts';
import type { Epoch } from './epoch.ts';
import { PagedBitmap } from './paged-bitmap.ts';

/**
 * A cut whose snapshot is not finished: which blocks must be kept as they were at its instant.
 *
 * It wants the blocks that were written since its base, as long as they are not captured (safe in the object store and
 * in the upload's journal). Where the dirty bits cannot be trusted it wants every block.
 */
export class Cut {
  /** The epoch that began at the cut. */
  readonly boundary: EpochNumber;
  #sources: readonly Epoch[];
  #everything: boolean;
  readonly #captured: PagedBitmap;
  /** Why the cut's bytes can no longer be had. */
  lost: string | undefined;

  constructor(boundary: EpochNumber, sources: readonly Epoch[], everything: boolean, blocks: number) {
    this.boundary = boundary;
    this.#sources = sources;
    this.#everything = everything;
    this.#captured = new PagedBitmap(blocks);
  }

  wants(block: number): boolean {
    if (this.lost !== undefined || this.#captured.get(block)) return false;
    if (this.#everything) return true;
    for (const epoch of this.#sources) if (epoch.dirty.bits.get(block)) return true;
    return false;
  }

  /** Whether every block is kept for it, and not only what was written since its base. */
  get everything(): boolean {
    return this.#everything;
  }

  captured(block: number): void {
    this.#captured.set(block);
  }

  /** The volume has grown; the cut is of what it was, and wants nothing beyond. */
  grow(blocks: number): void {
    this.#captured.grow(blocks);
  }

  /** A newer base: what was written before it is in the base already. */
  rebase(boundary: EpochNumber): void {
    this.#sources = this.#sources.filter((epoch) => epoch.number >= boundary);
    // A base that completed is newer than any history that could not be trusted.
    this.#everything = false;
  }
}

/** The bytes of a cut are gone: its snapshot ends in `error`, with this message. */
export class CutLostError extends Error {
  override name = 'CutLostError';
}
