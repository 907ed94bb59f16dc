import { addressOf } from '../types/address.ts';
import { emptyPages } from '../types/memory.ts';
import type { KeptMemory } from './idle-memory.ts';

/** A turn's worth of requests; the kernel holds a few hundred KiB for a socket. */
const USUAL_BYTES = 1024 * 1024;
/** A larger one was for one request: kept, it would cost each connection that ever sent such a one 32 MiB. */
const MOST_KEPT_BYTES = 4 * 1024 * 1024;
const STEP_BYTES = 256 * 1024;

/**
 * The bytes that a client has sent and that are not yet dealt with, in one piece: requests are read where they lie, and
 * a write's data goes to the volume from here, without a copy.
 */
export class ReceiveBuffer implements KeptMemory {
  wasUsed = false;
  /** What the connection keeps: as large as its requests, up to a bound. */
  #kept = Buffer.allocUnsafeSlow(USUAL_BYTES);
  #keptAddress = addressOf(this.#kept);
  #bytes = this.#kept;
  #address = this.#keptAddress;
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
    this.wasUsed = true;
  }

  /** Takes bytes that lie elsewhere. */
  copyIn(bytes: Uint8Array): void {
    this.makeRoom(this.length + bytes.byteLength);
    this.#bytes.set(bytes, this.#end);
    this.#end += bytes.byteLength;
    this.wasUsed = true;
  }

  /** Not while part of a request is here. (Whole ones are dealt with in the turn that brings them.) */
  empty(): void {
    if (this.length === 0) emptyPages(this.#kept);
  }

  /** So many bytes are dealt with. */
  consume(length: number): void {
    this.#start += length;
    if (this.#start < this.#end) return;
    this.#start = 0;
    this.#end = 0;
    this.#bytes = this.#kept;
    this.#address = this.#keptAddress;
  }

  /** Sees to it that `length` bytes in all, those that are here among them, fit in one piece. */
  makeRoom(length: number): void {
    if (this.#start + length <= this.#bytes.length && this.#end < this.#bytes.length) return;
    const here = this.#bytes.subarray(this.#start, this.#end);
    if (length > MOST_KEPT_BYTES) {
      this.#bytes = Buffer.allocUnsafeSlow(length);
      this.#address = addressOf(this.#bytes);
    } else {
      if (length > this.#kept.length) {
        this.#kept = Buffer.allocUnsafeSlow(Math.ceil(length / STEP_BYTES) * STEP_BYTES);
        this.#keptAddress = addressOf(this.#kept);
      }
      this.#bytes = this.#kept;
      this.#address = this.#keptAddress;
    }
    // (A copy within one buffer is safe: `set` goes by memmove.)
    this.#bytes.set(here);
    this.#end = here.length;
    this.#start = 0;
  }
}
