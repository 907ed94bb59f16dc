import koffi from 'koffi';
import { PAGE_BYTES } from '../types/units.ts';

/**
 * The OpenSSL that is inside Node, called directly. `node:crypto` makes a new cipher object for every page, which costs
 * ten times what the encryption does; here one context keeps its key, and only the tweak changes.
 */
const openssl = koffi.load(null);
const newContext = openssl.func('void *EVP_CIPHER_CTX_new()');
const freeContext = openssl.func('void EVP_CIPHER_CTX_free(void *context)');
const aes256Xts = openssl.func('const void *EVP_aes_256_xts()');
const initialize = openssl.func(
  'int EVP_CipherInit_ex(void *context, const void *cipher, void *engine, const uint8_t *key, const uint8_t *tweak, int encrypt)',
);
const update = openssl.func(
  'int EVP_CipherUpdate(void *context, uint8_t *target, int *written, const uint8_t *source, int length)',
);

const KEEP_DIRECTION = -1;
const SECTOR_BYTES = 512;

/**
 * AES-256-XTS (IEEE 1619) over a volume's pages of 4 KiB; the tweak is the page's number.
 *
 * A sector of 512 zero bytes in the file stands for zeroes, not for ciphertext: so holes read as zeroes, and so does what
 * a torn first write did not reach. (Ciphertext is never all zeroes: one chance in 2^4096.)
 */
export class PageCipher {
  readonly #encrypting: unknown;
  readonly #decrypting: unknown;
  readonly #tweak = Buffer.alloc(16);
  readonly #written = new Int32Array(1);
  #closed = false;

  /** @param key 64 bytes */
  constructor(key: Uint8Array) {
    if (key.length !== 64) throw new Error('AES-256-XTS takes a key of 64 bytes');
    this.#encrypting = newContext();
    this.#decrypting = newContext();
    const cipher = aes256Xts();
    // OpenSSL refuses a key whose two halves are the same.
    if (initialize(this.#encrypting, cipher, null, key, null, 1) !== 1) throw new Error('the volume key was refused');
    if (initialize(this.#decrypting, cipher, null, key, null, 0) !== 1) throw new Error('the volume key was refused');
  }

  /** Encrypts whole pages. @param firstPage the number of the first one in the volume */
  encrypt(source: Uint8Array, target: Uint8Array, firstPage: number): void {
    for (let at = 0, page = firstPage; at < source.length; at += PAGE_BYTES, page += 1) {
      this.#apply(this.#encrypting, source.subarray(at, at + PAGE_BYTES), target.subarray(at, at + PAGE_BYTES), page);
    }
  }

  /** Decrypts whole pages where they lie. */
  decrypt(bytes: Uint8Array, firstPage: number): void {
    for (let at = 0, page = firstPage; at < bytes.length; at += PAGE_BYTES, page += 1) {
      const stored = bytes.subarray(at, at + PAGE_BYTES);
      let zeroes = zeroSectors(stored);
      if (zeroes === ALL_SECTORS) continue;
      this.#apply(this.#decrypting, stored, stored, page);
      for (let sector = 0; zeroes !== 0; sector += 1, zeroes >>>= 1) {
        if ((zeroes & 1) === 1) stored.fill(0, sector * SECTOR_BYTES, (sector + 1) * SECTOR_BYTES);
      }
    }
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    freeContext(this.#encrypting);
    freeContext(this.#decrypting);
  }

  #apply(context: unknown, source: Uint8Array, target: Uint8Array, page: number): void {
    // A context that was freed is not to be touched, whatever the caller's mistake.
    if (this.#closed) throw new Error('the volume is closed');
    this.#tweak.writeUIntLE(page, 0, 6);
    const ready = initialize(context, null, null, null, this.#tweak, KEEP_DIRECTION);
    if (ready !== 1 || update(context, target, this.#written, source, source.length) !== 1) {
      throw new Error('AES-XTS failed');
    }
  }
}

const ALL_SECTORS = (1 << (PAGE_BYTES / SECTOR_BYTES)) - 1;

/** The sectors of a page that are all zeroes: a bit for each. */
function zeroSectors(page: Uint8Array): number {
  let zeroes = 0;
  for (let sector = 0, at = 0; at < page.length; sector += 1, at += SECTOR_BYTES) {
    if ((page[at] | page[at + 1] | page[at + 2] | page[at + 3]) !== 0) continue;
    if (isZero(page, at, at + SECTOR_BYTES)) zeroes |= 1 << sector;
  }
  return zeroes;
}

function isZero(bytes: Uint8Array, from: number, to: number): boolean {
  for (let at = from; at < to; at += 1) if (bytes[at] !== 0) return false;
  return true;
}
