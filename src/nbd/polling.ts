import { yieldProcessor } from './socket-calls.ts';

/** One that may have something to do, and can be asked without waiting. */
export type Polled = {
  /** Does what there is to do. @returns whether there was anything */
  poll(): boolean;
  /** Whether its client asks for one thing, waits, and then asks for the next. */
  readonly isAskingOneByOne: boolean;
};

/** So long it is worth to look: about twice what it takes to sleep and be woken (milliseconds). */
const PATIENCE_MILLISECONDS = 0.05;
/** Then the event loop has its turn, whatever comes: cuts and other processes' messages arrive by it. */
const LONGEST_MILLISECONDS = 1;
const MOST_CONNECTIONS = 8;
/** After so many vain looks in a row the next ones are left out, so that an idle client costs nothing. */
const VAIN_LOOKS = 4;
const LEFT_OUT = 64;

const recent = new Set<Polled>();
let vain = 0;
let leftOut = 0;

/**
 * After a turn of a connection whose client waits for each answer: looks for the next request for a moment, instead of
 * going to sleep and being woken. Looks at the others that were busy just now, too, so that none waits for another.
 */
export function pollOn(connection: Polled): void {
  recent.add(connection);
  if (!connection.isAskingOneByOne || recent.size > MOST_CONNECTIONS) {
    recent.clear();
    return;
  }
  if (vain >= VAIN_LOOKS) {
    leftOut += 1;
    if (leftOut < LEFT_OUT) return;
    leftOut = 0;
  }
  const begun = performance.now();
  const busy = new Set<Polled>();
  for (let quietSince = begun; ; ) {
    let found = false;
    for (const each of recent) {
      if (!each.poll()) continue;
      found = true;
      busy.add(each);
    }
    const now = performance.now();
    if (found) quietSince = now;
    if (now - quietSince > PATIENCE_MILLISECONDS || now - begun > LONGEST_MILLISECONDS) break;
    if (!found) yieldProcessor();
  }
  vain = busy.size > 0 ? 0 : vain + 1;
  recent.clear();
  for (const each of busy) recent.add(each);
}
