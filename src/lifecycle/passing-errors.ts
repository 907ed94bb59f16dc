import { WorkerDiedError } from '../dataplane/data-plane.ts';
import { KeysUnavailableError } from '../keys/data-keys.ts';

/** A worker that died comes back, and so does the keeper of keys: what failed of that is to be tried again. */
export function isPassing(error: unknown): boolean {
  return error instanceof WorkerDiedError || error instanceof KeysUnavailableError;
}
