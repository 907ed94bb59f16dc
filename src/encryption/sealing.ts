import { createCipheriv, createDecipheriv } from 'node:crypto';

export const NONCE_BYTES = 12;
export const TAG_BYTES = 16;

/**
 * AES-256-GCM (NIST SP 800-38D). A nonce must never serve twice under one key.
 * @param attached is not hidden, but cannot be changed unnoticed
 * @returns the ciphertext, then the tag: 16 bytes longer than what went in
 */
export function seal(key: Buffer, nonce: Uint8Array, plain: Uint8Array, attached: Uint8Array): Buffer {
  const cipher = createCipheriv('aes-256-gcm', key, nonce);
  cipher.setAAD(attached);
  const sealed = cipher.update(plain);
  cipher.final();
  return Buffer.concat([sealed, cipher.getAuthTag()]);
}

/** @throws SealBrokenError when a single bit is not as it was sealed, or the key is another */
export function unseal(key: Buffer, nonce: Uint8Array, sealed: Uint8Array, attached: Uint8Array): Buffer {
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
