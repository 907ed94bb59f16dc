import type { OpenVolume } from '../volumes/engine.ts';
import type { Request } from './request.ts';

/** Reads of one connection that other threads wait for at once: few do, see below. */
const MOST_BRINGING = 4;
/** The oldest are looked at each time: a client may have asked for hundreds, and a look costs some microseconds. */
const MOST_LOOKS = 16;
/** What was brought near may be gone again before it is read, where memory is short; at last the disk is waited for. */
const MOST_TRIES = 3;

type DiskRead = { request: Request; tries: number; resolve: () => void; reject: (failure: unknown) => void };

/**
 * The reads of a connection whose bytes are on the disk. The first look at each has made the kernel begin to read it, so
 * the disk has all that the client has asked for at once. Other threads wait for a few of them; whenever one has come, so
 * may have many others, and all their answers go in one send.
 */
export class DiskReads {
  readonly #export: OpenVolume;
  readonly #answer: (request: Request) => boolean;
  readonly #answerAnyhow: (request: Request) => void | Promise<void>;
  readonly #send: () => void;
  readonly #waiting: DiskRead[] = [];
  #bringing = 0;

  /**
   * @param answer reads and answers where the bytes are in memory; says whether they were
   * @param answerAnyhow answers, whatever must be waited for
   * @param send sends what was answered
   */
  constructor(
    target: OpenVolume,
    answer: (request: Request) => boolean,
    answerAnyhow: (request: Request) => void | Promise<void>,
    send: () => void,
  ) {
    this.#export = target;
    this.#answer = answer;
    this.#answerAnyhow = answerAnyhow;
    this.#send = send;
  }

  /** Resolves when the read is answered. */
  wait(request: Request): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ request, tries: 0, resolve, reject });
      this.#bringNear();
    });
  }

  #bringNear(): void {
    while (this.#bringing < MOST_BRINGING) {
      const next = this.#waiting.shift();
      if (next === undefined) return;
      this.#bringing += 1;
      void this.#export.bringNear(next.request.offset, next.request.length).then(() => {
        this.#bringing -= 1;
        next.tries += 1;
        const looked = [next, ...this.#waiting.splice(0, MOST_LOOKS)];
        this.#waiting.unshift(...looked.filter((read) => !this.#settle(read)));
        this.#send();
        this.#bringNear();
      });
    }
  }

  /** @returns whether the read need not be waited for any more */
  #settle(read: DiskRead): boolean {
    try {
      if (this.#answer(read.request)) read.resolve();
      else if (read.tries < MOST_TRIES) return false;
      else void Promise.resolve(this.#answerAnyhow(read.request)).then(read.resolve, read.reject);
    } catch (failure) {
      read.reject(failure);
    }
    return true;
  }
}
