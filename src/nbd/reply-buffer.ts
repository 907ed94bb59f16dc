import { addressOf } from '../types/address.ts';
import { emptyPages } from '../types/memory.ts';
import type { Connection } from './connection.ts';
import type { KeptMemory } from './idle-memory.ts';

const ARENA_BYTES = 512 * 1024;
const SPARE_ARENAS = 4;
/** One for large reads is kept, too, up to this size. */
const MOST_KEPT_BYTES = 4 * 1024 * 1024;

type Arena = { bytes: Buffer; address: number };

/**
 * Gathers the replies of one turn into one buffer and one send. Buffers are taken from a small pool and go back to it when
 * the kernel has the bytes.
 */
export class ReplyBuffer implements KeptMemory {
  wasUsed = false;
  readonly #connection: Connection;
  readonly #spare: Arena[] = [];
  #spareLarge: Arena | undefined;
  #arena: Arena | undefined;
  #used = 0;

  constructor(connection: Connection) {
    this.#connection = connection;
  }

  /**
   * Room for `length` bytes that will be sent by the next `flush`. They must be filled before this turn of the event
   * loop ends.
   * @returns the buffer and where in it the room begins
   */
  reserve(length: number): { buffer: Buffer; start: number } {
    if (this.#arena !== undefined && this.#used + length > this.#arena.bytes.length) this.flush();
    if (this.#arena === undefined) {
      this.#arena = length > ARENA_BYTES ? this.#large(length) : (this.#spare.pop() ?? newArena(ARENA_BYTES));
      this.#used = 0;
    }
    const start = this.#used;
    this.#used += length;
    this.wasUsed = true;
    return { buffer: this.#arena.bytes, start };
  }

  /** Takes back the room of the latest `reserve`: its reply will be another one. */
  unreserve(length: number): void {
    this.#used -= length;
  }

  empty(): void {
    for (const arena of this.#spare) emptyPages(arena.bytes);
    if (this.#spareLarge !== undefined) emptyPages(this.#spareLarge.bytes);
  }

  flush(): void {
    const arena = this.#arena;
    if (arena === undefined) return;
    this.#arena = undefined;
    if (this.#used === 0) {
      this.#recycle(arena);
      return;
    }
    this.#connection.send(arena.bytes, this.#used, arena.address, () => this.#recycle(arena));
  }

  #large(length: number): Arena {
    const spare = this.#spareLarge;
    this.#spareLarge = undefined;
    return spare !== undefined && spare.bytes.length >= length ? spare : newArena(length);
  }

  #recycle(arena: Arena): void {
    if (arena.bytes.length > ARENA_BYTES) {
      if (arena.bytes.length <= MOST_KEPT_BYTES) this.#spareLarge = arena;
    } else if (this.#spare.length < SPARE_ARENAS) {
      this.#spare.push(arena);
    }
  }
}

function newArena(length: number): Arena {
  const bytes = Buffer.allocUnsafeSlow(length);
  return { bytes, address: addressOf(bytes) };
}
