import { WrongKeyError } from '../encryption/data-key.ts';
import { FinalError, ObjectNotFoundError, ObjectTooShortError } from '../objects/object-store.ts';
import { type Patience, patiently } from '../objects/patience.ts';
import { CorruptBlockError } from './block-encoding.ts';

/** What is stored is not what was stored. */
export class DamagedObjectError extends FinalError {
  override name = 'DamagedObjectError';
}

/** Whether it is said of an object for good: asking again, when the store is back, will not change it. */
export function isLost(error: unknown): boolean {
  return error instanceof ObjectNotFoundError || error instanceof DamagedObjectError;
}

/** Wrong bytes, or too few, may be the network's doing: they are fetched again so often before the store itself is blamed. */
const CORRUPT_ATTEMPTS = 3;

/**
 * Fetches and decodes blocks, with patience for a store that fails, and little for one that lies.
 * @throws DamagedObjectError when the bytes are wrong again and again; FinalError where the key is another one
 */
export function fetchPatiently<Answer>(patience: Patience, fetch: () => Promise<Answer>): Promise<Answer> {
  let corrupt = 0;
  return patiently(patience, async () => {
    try {
      return await fetch();
    } catch (error) {
      if (error instanceof WrongKeyError) throw new FinalError(error.message);
      if (error instanceof CorruptBlockError || error instanceof ObjectTooShortError) {
        corrupt += 1;
        if (corrupt === CORRUPT_ATTEMPTS) throw new DamagedObjectError(error.message);
      }
      throw error;
    }
  });
}
