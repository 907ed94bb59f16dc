import { isLost } from '../snapshots/fetch.ts';

/** The manifest of a volume's base is gone from the object store, or damaged: no snapshot can be stored on top of it. */
export class BaseLostError extends Error {
  override name = 'BaseLostError';
}

/** By its name: it comes from another process. */
export function isBaseLost(error: unknown): error is Error {
  return error instanceof Error && error.name === 'BaseLostError';
}

/** @param readsBase whether all that was read of the store is the base's */
export function asBaseLost(error: unknown, readsBase: boolean): unknown {
  if (!readsBase || !isLost(error)) return error;
  return new BaseLostError(
    `What the snapshot was to be stored on top of cannot be read any more (${(error as Error).message}). The next snapshot of the volume will hold everything.`,
  );
}
