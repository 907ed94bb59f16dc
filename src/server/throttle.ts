/** A token bucket for each account: so many requests a second, and a burst on top. */
export class Throttle {
  readonly #perSecond: number;
  readonly #burst: number;
  readonly #now: () => number;
  readonly #buckets = new Map<string, { tokens: number; at: number }>();

  /** @param perSecond 0 lets everything through @param now in milliseconds */
  constructor(perSecond: number, burst: number, now: () => number) {
    this.#perSecond = perSecond;
    this.#burst = burst;
    this.#now = now;
  }

  /** Takes one token. @returns false when there is none: the request is to be refused */
  admit(accountId: string): boolean {
    if (this.#perSecond === 0) return true;
    const now = this.#now();
    const bucket = this.#buckets.get(accountId) ?? { tokens: this.#burst, at: now };
    bucket.tokens = Math.min(this.#burst, bucket.tokens + ((now - bucket.at) / 1000) * this.#perSecond);
    bucket.at = now;
    this.#buckets.set(accountId, bucket);
    if (bucket.tokens < 1) return false;
    bucket.tokens -= 1;
    return true;
  }
}
