import { setTimeout } from 'node:timers/promises';
import { monotonicMilliseconds } from '../types/monotonic.ts';

/** How busy a worker's guests keep it, and how pressing its uploads are. */
export type GuestLoad = {
  /** When, in milliseconds of the machine's monotonic clock. */
  at: number;
  /** So many of their requests it has answered; with none since the last look, it worked for no guest. */
  requests: number;
  /** So long was the thread that serves them at work, since the process began. */
  activeMilliseconds: number;
  /** Of the old pages that may be kept for one volume, how many are: the largest share among its volumes. */
  stagedShare: number;
};

/**
 * After so much work, this many times as long a rest, when guests keep the worker as busy as they can: beside an upload
 * that is about three quarters of the time. Less by the cube of how busy they are, since where a half of the time is free
 * there is room for both.
 */
const REST_FACTOR = 38;
const FULLY_BUSY_SHARE = 0.75;
/**
 * Other workers' guests count for less: only the processors are what they want, too. Beside an upload of 1 GiB on another
 * worker's volume, guests who did what they could had 51 to 57 % of their rate with a half, 90 with two thirds.
 */
const NEIGHBOURS_WEIGHT = 2 / 3;
/** An upload that takes long rests less, from a quarter of an hour on so many times: one of many GiB must end, too. */
const REST_FACTOR_OF_OLD = 4;
const YOUNG_MILLISECONDS = 5 * 60_000;
const OLD_MILLISECONDS = 15 * 60_000;
/** So little is not worth resting for: the uploads themselves keep the worker that busy. */
const QUIET_SHARE = 0.08;
/**
 * What the worker did is looked at over about so long. Between two batches lie a few milliseconds, and in some of them
 * the uploads' own questions are a fifth of it: a machine without guests rested a quarter of the time.
 */
const LOOK_BACK_MILLISECONDS = 50;
/** Guests, to be given way to at once: of 1,024 looks at an upload without any, two had more than 0.18. */
const GUESTS_SHARE = 0.25;
/**
 * When so large a share of what may be staged is, uploads no longer rest: a snapshot must not be lost for politeness, and
 * what they still have to store may be much more than what they have stored.
 */
const PRESSING_SHARE = 0.25;
const LONGEST_REST_MILLISECONDS = 200;
/** What was said of guests less long ago is not asked for again: with most answers it comes by itself. */
const FRESH_MILLISECONDS = 10;
/** Rests that are shorter are saved up. */
const SHORTEST_REST_MILLISECONDS = 1;

/**
 * Has a thread that uploads rest between pieces of work, the longer the busier guests are. A low priority alone does not
 * do it: the kernel gives the thread any processor that is free for a moment, and the guest whose request comes then
 * finds itself in one queue with others on the next.
 */
export class Pace {
  readonly #ask: () => Promise<GuestLoad>;
  readonly #neighbours: () => number;
  /** What has been said since the last rest. */
  #noted: GuestLoad | undefined;
  #since: number;
  #active = 0;
  #requests = 0;
  #busy = 0;
  #worked = process.threadCpuUsage();
  #resting: Promise<void> | undefined;
  /** What a piece of work is to be multiplied with for the rest after it. */
  factor = 0;

  /**
   * @param neighbours how busy the guests of other workers are, from 0 to 1: see Neighbours
   * @param now by the clock of the loads
   */
  constructor(ask: () => Promise<GuestLoad>, neighbours: () => number, now: number = monotonicMilliseconds()) {
    this.#ask = ask;
    this.#neighbours = neighbours;
    this.#since = now;
  }

  /** Takes a load that came with another answer: the next rest need not ask for it. */
  note(load: GuestLoad): void {
    this.#noted = load;
  }

  /**
   * Between two pieces of work; of several that ask at once, all rest together.
   * @param age for how long the upload has been under way, in milliseconds
   */
  rest(age: number): Promise<void> {
    this.#resting ??= this.#rest(age).finally(() => {
      this.#resting = undefined;
    });
    return this.#resting;
  }

  async #rest(age: number): Promise<void> {
    if (this.#noted !== undefined || monotonicMilliseconds() - this.#since > FRESH_MILLISECONDS) {
      this.#look(this.#noted ?? (await this.#ask()), age);
      this.#noted = undefined;
    }
    const { user, system } = process.threadCpuUsage(this.#worked);
    const rest = restAfter((user + system) / 1000, this.factor);
    if (rest < SHORTEST_REST_MILLISECONDS) return;
    await setTimeout(rest);
    this.#worked = process.threadCpuUsage();
  }

  #look({ at, requests, activeMilliseconds, stagedShare }: GuestLoad, age: number): void {
    // Never a division by nothing: a factor that is no number would be a rest without an end.
    const elapsed = Math.max(0.001, at - this.#since);
    const forGuests = requests === this.#requests ? 0 : activeMilliseconds - this.#active;
    const busy = Math.min(1, forGuests / elapsed);
    this.#busy += (busy - this.#busy) * Math.min(1, elapsed / LOOK_BACK_MILLISECONDS);
    this.#since = at;
    this.#active = activeMilliseconds;
    this.#requests = requests;
    const seen = Math.max(busy < GUESTS_SHARE ? 0 : busy, this.#busy, NEIGHBOURS_WEIGHT * this.#neighbours());
    const wanted = seen < QUIET_SHARE ? 0 : longestFactor(age) * Math.min(1, seen / FULLY_BUSY_SHARE) ** 3;
    this.factor = wanted * Math.max(0, 1 - stagedShare / PRESSING_SHARE);
  }
}

function longestFactor(age: number): number {
  const old = Math.min(1, Math.max(0, (age - YOUNG_MILLISECONDS) / (OLD_MILLISECONDS - YOUNG_MILLISECONDS)));
  return REST_FACTOR + (REST_FACTOR_OF_OLD - REST_FACTOR) * old;
}

/** @param worked and the answer: milliseconds */
export function restAfter(worked: number, factor: number): number {
  return Math.min(LONGEST_REST_MILLISECONDS, worked * factor);
}
