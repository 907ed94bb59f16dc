import { emptyPages } from '../types/memory.ts';
import { newPackRoom } from './pack.ts';

/** Then the upload is over, most likely, and the next one may be an hour away. */
const IDLE_MILLISECONDS = 2000;

type Waiting = { resolve: (room: Buffer) => void; reject: (reason: unknown) => void };

/**
 * Where packs lie while they are filled and stored: so many at once, whoever fills them, since each is 21 MiB. They go
 * round: left to the garbage collector, they would pile up faster than it runs. When none has been needed for a while, the
 * kernel has their memory: a worker that has stored something once would keep 84 MiB for ever.
 */
export class PackRooms {
  readonly #most: number;
  readonly #spare: Buffer[] = [];
  readonly #waiting = new Set<Waiting>();
  #taken = 0;
  #sinceIdle: NodeJS.Timeout | undefined;

  /** @param most at least one for each who takes one at a time, and stores what he has before he takes another */
  constructor(most: number) {
    this.#most = most;
  }

  /** Resolves when there is a room. @throws the signal's reason, when it comes first */
  async take(signal: AbortSignal): Promise<Buffer> {
    signal.throwIfAborted();
    if (this.#taken < this.#most) {
      this.#taken += 1;
      clearTimeout(this.#sinceIdle);
      return this.#spare.pop() ?? newPackRoom();
    }
    const { promise, resolve, reject } = Promise.withResolvers<Buffer>();
    const waiting = { resolve, reject };
    this.#waiting.add(waiting);
    const giveUp = (): void => {
      if (this.#waiting.delete(waiting)) reject(signal.reason);
    };
    signal.addEventListener('abort', giveUp);
    return promise.finally(() => signal.removeEventListener('abort', giveUp));
  }

  /** The pack is stored: its room is the next one's. */
  give(room: Buffer): void {
    if (this.#handOver(room)) return;
    this.#spare.push(room);
    this.#release();
  }

  /** The pack will not be stored, and its room may still be read from: another takes its place. */
  forget(): void {
    if (this.#waiting.size > 0) this.#handOver(newPackRoom());
    else this.#release();
  }

  #release(): void {
    this.#taken -= 1;
    if (this.#taken > 0) return;
    this.#sinceIdle = setTimeout(() => this.#spare.forEach(emptyPages), IDLE_MILLISECONDS).unref();
  }

  #handOver(room: Buffer): boolean {
    const [next] = this.#waiting;
    if (next === undefined) return false;
    this.#waiting.delete(next);
    next.resolve(room);
    return true;
  }
}
