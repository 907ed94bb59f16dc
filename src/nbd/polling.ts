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
/** Where more than these are busy, the event loop does not sleep long, and others need the processors. */
const MOST_CONNECTIONS = 2;
const BUSY_MILLISECONDS = 10;
/** A processor that comes back so much later is wanted by others. */
const YIELD_MILLISECONDS = 0.1;
/** After so many vain looks in a row the next ones are left out, so that an idle client costs nothing. */
const VAIN_LOOKS = 4;
const LEFT_OUT = 64;

/** What a disk that is worth waiting for takes for one read; another thread takes as long to be woken, and to wake this one. */
const DISK_MILLISECONDS = 0.25;

/** Those that had something to do a moment ago, and when. */
const busy = new Map<Polled, number>();
let vain = 0;
let leftOut = 0;
let vainReads = 0;
let leftOutReads = 0;

/**
 * After a turn of a connection whose client waits for each answer: looks for the next request for a moment, instead of
 * going to sleep and being woken. Looks at another that is busy, too, so that neither waits for the other.
 */
export function pollOn(connection: Polled): void {
  const begun = performance.now();
  busy.set(connection, begun);
  for (const [each, at] of busy) if (begun - at > BUSY_MILLISECONDS) busy.delete(each);
  if (!connection.isAskingOneByOne || busy.size > MOST_CONNECTIONS) return;
  if (vain >= VAIN_LOOKS) {
    leftOut += 1;
    if (leftOut < LEFT_OUT) return;
    leftOut = 0;
  }
  let anything = false;
  for (let quietSince = begun; ; ) {
    let found = false;
    for (const each of busy.keys()) {
      if (!each.poll()) continue;
      found = true;
      busy.set(each, performance.now());
    }
    const now = performance.now();
    anything ||= found;
    if (found) quietSince = now;
    if (now - quietSince > PATIENCE_MILLISECONDS || now - begun > LONGEST_MILLISECONDS) break;
    if (found) continue;
    yieldProcessor();
    if (performance.now() - now < YIELD_MILLISECONDS) continue;
    vain = VAIN_LOOKS;
    return;
  }
  vain = anything ? 0 : vain + 1;
}

/**
 * After a read of one who asks one by one, of what the kernel has just begun to bring from the disk: looks for it for a
 * moment, as long as such looks find something.
 */
export function lookAgain(read: () => boolean): boolean {
  if (vainReads >= VAIN_LOOKS) {
    leftOutReads += 1;
    if (leftOutReads < LEFT_OUT) return false;
    leftOutReads = 0;
  }
  const begun = performance.now();
  do {
    if (!read()) continue;
    vainReads = 0;
    return true;
  } while (performance.now() - begun < DISK_MILLISECONDS);
  vainReads += 1;
  return false;
}
