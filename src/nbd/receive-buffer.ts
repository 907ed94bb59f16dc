import { addressOf } from './socket-calls.ts';

/** A turn's worth of requests; the kernel holds a few hundred KiB for a socket. */
const USUAL_BYTES = 1024 * 1024;

/**
 * The bytes that a client has sent and that are not yet dealt with, in one piece: requests are read where they lie, and
 * a write's data goes to the volume from here, without a copy.
 */
export class ReceiveBuffer {
  readonly #usual = Buffer.allocUnsafeSlow(USUAL_BYTES);
  readonly #usualAddress = addressOf(this.#usual);
  #bytes = this.#usual;
  #address = this.#usualAddress;
  #start = 0;
  #end = 0;

  /** What has come lies in `bytes[start, start + length)`. */
  get bytes(): Buffer {
    return this.#bytes;
  }

  get start(): number {
    return this.#start;
  }

  get length(): number {
    return this.#end - this.#start;
  }

  /** Where the next bytes are to go, and how many there is room for. */
  get roomAddress(): number {
    return this.#address + this.#end;
  }

  get roomBytes(): number {
    return this.#bytes.length - this.#end;
  }

  /** So many bytes are in the room now. */
  added(length: number): void {
    this.#end += length;
  }

  /** Takes bytes that lie elsewhere. */
  copyIn(bytes: Uint8Array): void {
    this.makeRoom(this.length + bytes.byteLength);
    this.#bytes.set(bytes, this.#end);
    this.#end += bytes.byteLength;
  }

  /** So many bytes are dealt with. */
  consume(length: number): void {
    this.#start += length;
    if (this.#start < this.#end) return;
    this.#start = 0;
    this.#end = 0;
    // A larger one was for one request: kept, it would cost each connection that ever sent such a one 32 MiB.
    this.#bytes = this.#usual;
    this.#address = this.#usualAddress;
  }

  /** Sees to it that `length` bytes in all, those that are here among them, fit in one piece. */
  makeRoom(length: number): void {
    if (this.#start + length <= this.#bytes.length && this.#end < this.#bytes.length) return;
    const kept = this.#bytes.subarray(this.#start, this.#end);
    const bytes = length <= USUAL_BYTES ? this.#usual : Buffer.allocUnsafeSlow(length);
    // (A copy within one buffer is safe: `set` goes by memmove.)
    bytes.set(kept);
    if (bytes !== this.#bytes) this.#address = bytes === this.#usual ? this.#usualAddress : addressOf(bytes);
    this.#bytes = bytes;
    this.#end = kept.length;
    this.#start = 0;
  }
}
