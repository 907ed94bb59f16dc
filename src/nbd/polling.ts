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

/** What a disk that is worth waiting for takes for one sync. */
const SYNC_MILLISECONDS = 1;

/** Whether to look for something of a kind: as long as such looks find it, and now and then. */
class Hope {
  #vain = 0;
  #leftOut = 0;

  isWorthALook(): boolean {
    if (this.#vain < VAIN_LOOKS) return true;
    this.#leftOut = (this.#leftOut + 1) % LEFT_OUT;
    return this.#leftOut === 0;
  }

  looked(found: boolean): void {
    this.#vain = found ? 0 : this.#vain + 1;
  }

  /** Others want the processor: the next looks are left out. */
  giveUp(): void {
    this.#vain = VAIN_LOOKS;
  }
}

/** Those that had something to do a moment ago, and when. */
const busy = new Map<Polled, number>();
const requests = new Hope();
const reads = new Hope();
const syncs = new Hope();

/**
 * After a turn of a connection whose client waits for each answer: looks for the next request for a moment, instead of
 * going to sleep and being woken. Looks at another that is busy, too, so that neither waits for the other.
 */
export function pollOn(connection: Polled): void {
  const begun = performance.now();
  busy.set(connection, begun);
  for (const [each, at] of busy) if (begun - at > BUSY_MILLISECONDS) busy.delete(each);
  if (!connection.isAskingOneByOne || busy.size > MOST_CONNECTIONS) return;
  if (!requests.isWorthALook()) return;
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
    requests.giveUp();
    return;
  }
  requests.looked(anything);
}

/**
 * After a read of one who asks one by one, of what the kernel has just begun to bring from the disk: looks for it for a
 * moment, as long as such looks find something.
 */
export function lookAgain(read: () => boolean): boolean {
  if (!reads.isWorthALook()) return false;
  const begun = performance.now();
  do {
    if (!read()) continue;
    reads.looked(true);
    return true;
  } while (performance.now() - begun < DISK_MILLISECONDS);
  reads.looked(false);
  return false;
}

/**
 * While another thread syncs for the only one who is busy, and who waits for nothing else: the event loop does not sleep
 * for a moment, since to be woken takes it a third of what the sync takes. It goes round, and cuts and others' requests
 * come as ever; and it yields, or the thread that syncs might have to wait for its processor.
 * @returns the sync
 */
export function stayAwake(connection: Polled, sync: Promise<void>): Promise<void> {
  if (!connection.isAskingOneByOne || busy.size > 1 || !syncs.isWorthALook()) return sync;
  let ended = false;
  const end = (): void => {
    ended = true;
  };
  sync.then(end, end);
  const until = performance.now() + SYNC_MILLISECONDS;
  const goRound = (): void => {
    const now = performance.now();
    if (ended || now > until) return syncs.looked(ended);
    yieldProcessor();
    if (performance.now() - now > YIELD_MILLISECONDS) return syncs.looked(false);
    setImmediate(goRound);
  };
  setImmediate(goRound);
  return sync;
}
