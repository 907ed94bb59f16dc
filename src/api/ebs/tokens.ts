import { createHmac, createSecretKey, type KeyObject, randomBytes, timingSafeEqual } from 'node:crypto';
import type { Catalog } from '../../catalog/catalog.ts';
import { DAY_MILLISECONDS } from '../../types/units.ts';
import { ebsErrors } from './ebs-errors.ts';

const LIFETIME_MILLISECONDS = 7 * DAY_MILLISECONDS;

/** Opaque tokens of the EBS direct APIs: each is good for one thing, for seven days, and for no one who makes one up. */
export class Tokens {
  readonly #key: KeyObject;
  readonly #now: () => Date;

  private constructor(key: KeyObject, now: () => Date) {
    this.#key = key;
    this.#now = now;
  }

  /** The key is made once and kept, so that tokens outlive a restart. */
  static async open(catalog: Catalog, now: () => Date): Promise<Tokens> {
    await catalog
      .insertInto('secrets')
      .values({ name: 'ebs-tokens', value: randomBytes(32).toString('hex') })
      .onConflict((conflict) => conflict.doNothing())
      .execute();
    const row = await catalog
      .selectFrom('secrets')
      .select('value')
      .where('name', '=', 'ebs-tokens')
      .executeTakeFirstOrThrow();
    return new Tokens(createSecretKey(row.value, 'hex'), now);
  }

  expiry(): Date {
    return new Date(this.#now().getTime() + LIFETIME_MILLISECONDS);
  }

  block(snapshotId: string, index: number, expiry: Date): string {
    return this.#write(`block ${snapshotId} ${index}`, String(expiry.getTime()));
  }

  /** @throws ApiError ValidationException INVALID_BLOCK_TOKEN */
  checkBlock(token: string, snapshotId: string, index: number): void {
    const expiry = this.#read(`block ${snapshotId} ${index}`, token);
    if (expiry === undefined || Number(expiry) < this.#now().getTime()) {
      const message = `The block token is not one for block ${index} of ${snapshotId}, or has expired.`;
      throw ebsErrors.invalid(message, 'INVALID_BLOCK_TOKEN');
    }
  }

  /** @param list what is being listed, so that a token of another list is not taken */
  page(list: string, nextIndex: number): string {
    return this.#write(`page ${list}`, String(nextIndex));
  }

  /** @throws ApiError ValidationException INVALID_PAGE_TOKEN */
  readPage(list: string, token: string): number {
    const next = this.#read(`page ${list}`, token);
    if (next === undefined) throw ebsErrors.invalid('The page token is not one of this list.', 'INVALID_PAGE_TOKEN');
    return Number(next);
  }

  #write(purpose: string, value: string): string {
    return Buffer.concat([this.#sign(purpose, value), Buffer.from(value)]).toString('base64url');
  }

  #read(purpose: string, token: string): string | undefined {
    const bytes = Buffer.from(token, 'base64url');
    if (bytes.length < 33) return undefined;
    const value = bytes.toString('utf8', 32);
    return timingSafeEqual(bytes.subarray(0, 32), this.#sign(purpose, value)) ? value : undefined;
  }

  #sign(purpose: string, value: string): Buffer {
    return createHmac('sha256', this.#key).update(`${purpose}\n${value}`).digest();
  }
}
