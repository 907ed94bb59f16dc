import type { Writable } from 'node:stream';

const ARENA_BYTES = 512 * 1024;
const SPARE_ARENAS = 4;

/**
 * Gathers the replies of one turn into one buffer and one socket write. Buffers are taken from a small pool and go back
 * to it when the kernel has the bytes.
 */
export class ReplyBuffer {
  readonly #socket: Writable;
  readonly #spare: Buffer[] = [];
  #arena: Buffer | undefined;
  #used = 0;

  constructor(socket: Writable) {
    this.#socket = socket;
  }

  /**
   * Room for `length` bytes that will be sent by the next `flush`. They must be filled before this turn of the event
   * loop ends.
   * @returns the buffer and where in it the room begins
   */
  reserve(length: number): { buffer: Buffer; start: number } {
    if (this.#arena !== undefined && this.#used + length > this.#arena.length) this.flush();
    if (this.#arena === undefined) {
      this.#arena =
        length > ARENA_BYTES
          ? Buffer.allocUnsafeSlow(length)
          : (this.#spare.pop() ?? Buffer.allocUnsafeSlow(ARENA_BYTES));
      this.#used = 0;
    }
    const start = this.#used;
    this.#used += length;
    return { buffer: this.#arena, start };
  }

  /** Takes back the room of the latest `reserve`: its reply will be another one. */
  unreserve(length: number): void {
    this.#used -= length;
  }

  flush(): void {
    const arena = this.#arena;
    if (arena === undefined) return;
    this.#arena = undefined;
    if (this.#used === 0 || this.#socket.destroyed) {
      this.#recycle(arena);
      return;
    }
    this.#socket.write(arena.subarray(0, this.#used), () => this.#recycle(arena));
  }

  #recycle(arena: Buffer): void {
    if (arena.length === ARENA_BYTES && this.#spare.length < SPARE_ARENAS) this.#spare.push(arena);
  }
}
