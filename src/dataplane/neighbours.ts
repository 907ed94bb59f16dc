import { readFileSync } from 'node:fs';

/** Short enough to see guests that come, long enough for the kernel's clock. */
const LOOK_MILLISECONDS = 100;
/** In which /proc/stat counts. */
const TICK_MILLISECONDS = 10;
/** So busy may others be without any guest: their own uploads ask them things. */
const QUIET_SHARE = 0.2;
/** What an upload keeps busy if nothing holds it up: one thread reads and hashes, one compresses. */
const UPLOAD_PROCESSORS = 2;

/** What was counted by a moment, all in milliseconds since something began. */
type Look = { at: number; guests: ReadonlyMap<string, number>; idle: number; upload: number };

/**
 * The guests of the other workers: an upload takes the processors from them as well as from its own, and they are in
 * another process, which nobody asks. Linux says for how long each thread has run (`/proc/PID/schedstat`; of a worker's
 * threads the first serves its guests), and how long the processors had nothing to do; on other systems nothing is known.
 */
export class Neighbours {
  readonly #read: (path: string) => string;
  readonly #now: () => number;
  #last: Look | undefined;
  #share = 0;

  /** @param now in milliseconds */
  constructor(
    read: (path: string) => string = (path) => readFileSync(path, 'latin1'),
    now: () => number = () => performance.now(),
  ) {
    this.#read = read;
    this.#now = now;
  }

  /**
   * How busy they keep one processor, all together, from 0 to 1, as far as an upload would be in their way: where it has
   * processors of its own, it is not.
   */
  busyShare(): number {
    const at = this.#now();
    if (this.#last !== undefined && at - this.#last.at < LOOK_MILLISECONDS) return this.#share;
    const look = this.#look(at);
    this.#share = look === undefined || this.#last === undefined ? 0 : shareBetween(this.#last, look);
    this.#last = look;
    return this.#share;
  }

  #look(at: number): Look | undefined {
    try {
      const guests = new Map<string, number>();
      let own = 0;
      for (const pid of this.#read(`/proc/${process.ppid}/task/${process.ppid}/children`).split(' ')) {
        if (Number(pid) === process.pid) own = this.#ranFor(pid);
        else if (pid.trim() !== '') guests.set(pid, this.#ranFor(pid));
      }
      const idle = Number(this.#read('/proc/stat').split(/\s+/, 5)[4]) * TICK_MILLISECONDS;
      const { user, system } = process.cpuUsage();
      return { at, guests, idle, upload: (user + system) / 1000 - own };
    } catch {
      return undefined;
    }
  }

  /** Of the first thread of a process. One that has just ended has run for no time. */
  #ranFor(pid: string): number {
    try {
      return Number(this.#read(`/proc/${pid}/task/${pid}/schedstat`).split(' ', 1)[0]) / 1e6;
    } catch {
      return 0;
    }
  }
}

function shareBetween(before: Look, after: Look): number {
  const elapsed = after.at - before.at;
  let ran = 0;
  // One that has begun since is not counted yet.
  for (const [pid, ranFor] of after.guests) ran += Math.max(0, ranFor - (before.guests.get(pid) ?? ranFor));
  const busy = Math.min(1, ran / elapsed);
  if (busy < QUIET_SHARE) return 0;
  // Processors that the upload has, or could have.
  const room = (after.idle - before.idle + after.upload - before.upload) / elapsed;
  return busy * Math.min(1, Math.max(0, UPLOAD_PROCESSORS - room));
}
