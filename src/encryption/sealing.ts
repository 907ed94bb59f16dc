import { createCipheriv, createDecipheriv, type KeyObject } from 'node:crypto';
import { giveBack } from '../types/memory.ts';

export const NONCE_BYTES = 12;
export const TAG_BYTES = 16;

/**
 * AES-256-GCM (NIST SP 800-38D). A nonce must never serve twice under one key.
 * @param key 32 bytes, as an object: where Node is given bytes, it makes the object anew, at ten times what a page costs
 * @param attached is not hidden, but cannot be changed unnoticed
 * @returns the ciphertext, then the tag: 16 bytes longer than what went in
 */
export function seal(key: KeyObject, nonce: Uint8Array, plain: Uint8Array, attached: Uint8Array): Buffer {
  const target = Buffer.allocUnsafe(plain.length + TAG_BYTES);
  sealInto(target, 0, key, nonce, plain, attached);
  return target;
}

/** The same, to where it belongs. @returns how many bytes of `target`, from `at` on, it has taken */
export function sealInto(
  target: Buffer,
  at: number,
  key: KeyObject,
  nonce: Uint8Array,
  plain: Uint8Array,
  attached: Uint8Array,
): number {
  const length = plain.length + TAG_BYTES;
  if (at + length > target.length) throw new RangeError(`there is no room for ${length} bytes at ${at}`);
  const cipher = createCipheriv('aes-256-gcm', key, nonce);
  cipher.setAAD(attached);
  const sealed = cipher.update(plain);
  cipher.final();
  sealed.copy(target, at);
  giveBack(sealed);
  cipher.getAuthTag().copy(target, at + plain.length);
  return length;
}

/** @throws SealBrokenError when a single bit is not as it was sealed, or the key is another */
export function unseal(key: KeyObject, nonce: Uint8Array, sealed: Uint8Array, attached: Uint8Array): Buffer {
  if (sealed.length < TAG_BYTES) throw new SealBrokenError();
  const end = sealed.length - TAG_BYTES;
  const decipher = createDecipheriv('aes-256-gcm', key, nonce, { authTagLength: TAG_BYTES });
  decipher.setAAD(attached);
  decipher.setAuthTag(sealed.subarray(end));
  const plain = decipher.update(sealed.subarray(0, end));
  try {
    decipher.final();
  } catch {
    throw new SealBrokenError();
  }
  return plain;
}

export class SealBrokenError extends Error {
  override name = 'SealBrokenError';
  constructor() {
    super('the bytes are not as they were sealed, or the key is another one');
  }
}
