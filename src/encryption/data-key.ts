import { createHmac, createSecretKey, hkdfSync, type KeyObject, randomBytes } from 'node:crypto';
import type { Sha256 } from '../types/units.ts';

const DATA_KEY_BYTES = 32;
const XTS_KEY_BYTES = 64;
const SECRET_KEY_BYTES = 32;

/**
 * The secret under which a volume and the snapshots of its lineage are encrypted. What encrypts is never this key
 * itself but one derived from it for just one purpose (HKDF, RFC 5869), so that no two uses can meet.
 */
export class DataKey {
  readonly #bytes: Uint8Array;
  readonly #secret: KeyObject;
  readonly #hashKey: KeyObject;
  #nodeKeys: { seal: KeyObject; nonce: KeyObject } | undefined;

  /** @param bytes 32 of them */
  constructor(bytes: Uint8Array) {
    if (bytes.length !== DATA_KEY_BYTES) throw new Error(`a data key has ${DATA_KEY_BYTES} bytes, not ${bytes.length}`);
    this.#bytes = bytes;
    this.#secret = createSecretKey(bytes);
    this.#hashKey = this.#deriveKey('cleancut block hash');
  }

  static generate(): DataKey {
    return new DataKey(randomBytes(DATA_KEY_BYTES));
  }

  /** The secret itself, to be wrapped, or handed to the process that does the work. */
  get bytes(): Uint8Array {
    return this.#bytes;
  }

  /** For AES-256-XTS over a volume's pages: 64 bytes. */
  volumeKey(): Buffer {
    return this.#derive('cleancut volume', XTS_KEY_BYTES);
  }

  /** For AES-256-GCM over the blocks of one pack. */
  packKey(packId: string): KeyObject {
    return this.#deriveKey(`cleancut pack ${packId}`);
  }

  /** For AES-256-GCM over manifest nodes, and for the nonces that are made of what they hold. */
  nodeKeys(): { seal: KeyObject; nonce: KeyObject } {
    this.#nodeKeys ??= {
      seal: this.#deriveKey('cleancut node'),
      nonce: this.#deriveKey('cleancut node nonce'),
    };
    return this.#nodeKeys;
  }

  /**
   * What stands for a block's SHA-256 where the volume is encrypted: HMAC-SHA-256, so that no one without the key can
   * find out whether a block is one that he knows.
   */
  hash(block: Uint8Array): Sha256 {
    return createHmac('sha256', this.#hashKey).update(block).digest('hex') as Sha256;
  }

  /** Tells this key from others without giving anything of it away. */
  get check(): string {
    return this.#derive('cleancut check', 16).toString('hex');
  }

  /** Of 32 bytes, for AES-256-GCM or HMAC-SHA-256. */
  #deriveKey(purpose: string): KeyObject {
    return createSecretKey(this.#derive(purpose, SECRET_KEY_BYTES));
  }

  #derive(purpose: string, length: number): Buffer {
    return Buffer.from(hkdfSync('sha256', this.#secret, '', purpose, length));
  }
}

/** An encrypted thing was asked for without its key, or with another one. */
export class WrongKeyError extends Error {
  override name = 'WrongKeyError';
}
