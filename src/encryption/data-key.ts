import { createHmac, hkdfSync, randomBytes } from 'node:crypto';
import type { Sha256 } from '../types/units.ts';

const DATA_KEY_BYTES = 32;
const XTS_KEY_BYTES = 64;
const GCM_KEY_BYTES = 32;

/**
 * The secret under which a volume and the snapshots of its lineage are encrypted. What encrypts is never this key
 * itself but one derived from it for just one purpose (HKDF, RFC 5869), so that no two uses can meet.
 */
export class DataKey {
  readonly #bytes: Uint8Array;
  readonly #hashKey: Buffer;
  #nodeKeys: { seal: Buffer; nonce: Buffer } | undefined;

  /** @param bytes 32 of them */
  constructor(bytes: Uint8Array) {
    if (bytes.length !== DATA_KEY_BYTES) throw new Error(`a data key has ${DATA_KEY_BYTES} bytes, not ${bytes.length}`);
    this.#bytes = bytes;
    this.#hashKey = this.#derive('cleancut block hash', GCM_KEY_BYTES);
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
  packKey(packId: string): Buffer {
    return this.#derive(`cleancut pack ${packId}`, GCM_KEY_BYTES);
  }

  /** For AES-256-GCM over manifest nodes, and for the nonces that are made of what they hold. */
  nodeKeys(): { seal: Buffer; nonce: Buffer } {
    this.#nodeKeys ??= {
      seal: this.#derive('cleancut node', GCM_KEY_BYTES),
      nonce: this.#derive('cleancut node nonce', GCM_KEY_BYTES),
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

  #derive(purpose: string, length: number): Buffer {
    return Buffer.from(hkdfSync('sha256', this.#bytes, '', purpose, length));
  }
}

/** An encrypted thing was asked for without its key, or with another one. */
export class WrongKeyError extends Error {
  override name = 'WrongKeyError';
}
