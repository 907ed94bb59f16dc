import { type KeyObject, randomBytes } from 'node:crypto';
import type { Catalog } from '../catalog/catalog.ts';
import { NONCE_BYTES, SealBrokenError, seal, unseal } from '../encryption/sealing.ts';

/** Seals what the catalog keeps of secrets: whoever has the catalog alone has none of them. */
export class SecretBox {
  readonly #key: KeyObject;

  /** @param key 32 bytes, which lie elsewhere than the catalog */
  constructor(key: KeyObject) {
    this.#key = key;
  }

  /** @param purpose what the secret is of: what was sealed for one thing does not open as another */
  seal(secret: string, purpose: string): string {
    const nonce = randomBytes(NONCE_BYTES);
    return Buffer.concat([nonce, seal(this.#key, nonce, Buffer.from(secret), Buffer.from(purpose))]).toString('base64');
  }

  /** @returns undefined for what was sealed under another key, for something else, or never */
  open(sealed: string, purpose: string): string | undefined {
    const bytes = Buffer.from(sealed, 'base64');
    try {
      return unseal(
        this.#key,
        bytes.subarray(0, NONCE_BYTES),
        bytes.subarray(NONCE_BYTES),
        Buffer.from(purpose),
      ).toString('utf8');
    } catch (error) {
      if (error instanceof SealBrokenError || bytes.length < NONCE_BYTES) return undefined;
      throw error;
    }
  }
}

/** The salt from which a server's box key is made: its own, kept in its catalog. */
export async function boxSalt(catalog: Catalog): Promise<Buffer> {
  await catalog
    .insertInto('secrets')
    .values({ name: 'secret-box-salt', value: randomBytes(16).toString('base64') })
    .onConflict((conflict) => conflict.doNothing())
    .execute();
  const row = await catalog
    .selectFrom('secrets')
    .select('value')
    .where('name', '=', 'secret-box-salt')
    .executeTakeFirstOrThrow();
  return Buffer.from(row.value, 'base64');
}
