import koffi from 'koffi';
import { addressOf } from '../types/address.ts';
import { PAGE_BYTES } from '../types/units.ts';

/**
 * The OpenSSL that is inside Node, called directly. `node:crypto` makes a new cipher object for every page, which costs
 * ten times what the encryption does; here one context keeps its key, and only the tweak changes. Pointers go as numbers:
 * turning buffers into pointers would cost as much again.
 */
const openssl = koffi.load(null);
const newContext = openssl.func('uintptr_t EVP_CIPHER_CTX_new()');
const freeContext = openssl.func('void EVP_CIPHER_CTX_free(uintptr_t context)');
const aes256Xts = openssl.func('uintptr_t EVP_aes_256_xts()');
const initialize = openssl.func(
  'int EVP_CipherInit_ex(uintptr_t context, uintptr_t cipher, uintptr_t engine, const uint8_t *key, const uint8_t *tweak, int encrypt)',
);
const setTweak = openssl.func(
  'int EVP_CipherInit_ex(uintptr_t context, uintptr_t cipher, uintptr_t engine, uintptr_t key, uintptr_t tweak, int encrypt)',
);
const apply = openssl.func(
  'int EVP_Cipher(uintptr_t context, uintptr_t target, uintptr_t source, unsigned int length)',
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
  readonly #encrypting: number;
  readonly #decrypting: number;
  readonly #tweak = new DataView(new ArrayBuffer(16));
  readonly #tweakAddress: number;
  #closed = false;

  /** @param key 64 bytes */
  constructor(key: Uint8Array) {
    if (key.length !== 64) throw new Error('AES-256-XTS takes a key of 64 bytes');
    this.#tweakAddress = addressOf(new Uint8Array(this.#tweak.buffer));
    this.#encrypting = Number(newContext());
    this.#decrypting = Number(newContext());
    const cipher = Number(aes256Xts());
    // OpenSSL refuses a key whose two halves are the same.
    const ready =
      initialize(this.#encrypting, cipher, 0, key, null, 1) === 1 &&
      initialize(this.#decrypting, cipher, 0, key, null, 0) === 1;
    if (!ready) throw new Error('the volume key was refused');
  }

  /** Encrypts whole pages into `target`, which must have room. @param firstPage the number of the first in the volume */
  encrypt(source: Uint8Array, target: Uint8Array, firstPage: number): void {
    checkPages(source.length);
    if (target.length < source.length) throw new Error('there is no room for the encrypted pages');
    const from = addressOf(source);
    const to = addressOf(target);
    for (let at = 0, page = firstPage; at < source.length; at += PAGE_BYTES, page += 1) {
      this.#apply(this.#encrypting, to + at, from + at, page);
    }
  }

  /** Decrypts whole pages where they lie. */
  decrypt(bytes: Uint8Array, firstPage: number): void {
    checkPages(bytes.length);
    const address = addressOf(bytes);
    for (let at = 0, page = firstPage; at < bytes.length; at += PAGE_BYTES, page += 1) {
      let zeroes = zeroSectors(bytes, at);
      if (zeroes === ALL_SECTORS) continue;
      this.#apply(this.#decrypting, address + at, address + at, page);
      for (let sector = at; zeroes !== 0; sector += SECTOR_BYTES, zeroes >>>= 1) {
        if ((zeroes & 1) === 1) bytes.fill(0, sector, sector + SECTOR_BYTES);
      }
    }
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    freeContext(this.#encrypting);
    freeContext(this.#decrypting);
  }

  /** One page, from and to addresses that the caller has checked to be within its buffers. */
  #apply(context: number, target: number, source: number, page: number): void {
    // A context that was freed is not to be touched, whatever the caller's mistake.
    if (this.#closed) throw new Error('the volume is closed');
    this.#tweak.setUint32(0, page % 0x1_0000_0000, true);
    this.#tweak.setUint32(4, Math.floor(page / 0x1_0000_0000), true);
    const ready = setTweak(context, 0, 0, 0, this.#tweakAddress, KEEP_DIRECTION);
    if (ready !== 1 || apply(context, target, source, PAGE_BYTES) < 0) throw new Error('AES-XTS failed');
  }
}

function checkPages(length: number): void {
  if (length % PAGE_BYTES !== 0) throw new Error(`${length} bytes are no whole number of pages`);
}

const ALL_SECTORS = (1 << (PAGE_BYTES / SECTOR_BYTES)) - 1;

/** The sectors of the page at `from` that are all zeroes: a bit for each. */
function zeroSectors(bytes: Uint8Array, from: number): number {
  let zeroes = 0;
  for (let sector = 0, at = from; at < from + PAGE_BYTES; sector += 1, at += SECTOR_BYTES) {
    if ((bytes[at] | bytes[at + 1] | bytes[at + 2] | bytes[at + 3]) !== 0) continue;
    if (isZero(bytes, at, at + SECTOR_BYTES)) zeroes |= 1 << sector;
  }
  return zeroes;
}

function isZero(bytes: Uint8Array, from: number, to: number): boolean {
  for (let at = from; at < to; at += 1) if (bytes[at] !== 0) return false;
  return true;
}
