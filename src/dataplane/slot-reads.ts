import type { ObjectReader } from '../objects/object-store.ts';
import { giveBack } from '../types/memory.ts';
import { BLOCK_BYTES } from '../types/units.ts';
import type { ObjectBytes, ObjectRead } from './messages.ts';

/** A block as it is stored, whatever its encoding has added; a manifest's node. */
export const READ_SLOT_BYTES = BLOCK_BYTES + 64 * 1024;
const SLOTS = 16;

/** Memory that the thread that reads and the one that serves guests both see. */
export function newReadRoom(): SharedArrayBuffer {
  return new SharedArrayBuffer(SLOTS * READ_SLOT_BYTES);
}

/** What lies in one slot of that memory. */
export function inSlot(room: SharedArrayBuffer, slot: number, length: number): Buffer {
  return Buffer.from(room, slot * READ_SLOT_BYTES, length);
}

/**
 * Reads objects for another thread, into memory that both see: a store's client in a network spends a millisecond or two
 * on each answer, and its garbage has the heap of its thread marked.
 */
export class SlotReads {
  readonly #store: ObjectReader;
  readonly #room: SharedArrayBuffer;
  readonly #free = Array.from({ length: SLOTS }, (_, slot) => slot);
  readonly #waiting: ((slot: number) => void)[] = [];

  /** @param room see newReadRoom */
  constructor(store: ObjectReader, room: SharedArrayBuffer) {
    this.#store = store;
    this.#room = room;
  }

  /** @returns where the bytes lie until `taken` says that they need not any more; a large object's come with the answer */
  async read({ key, range }: ObjectRead): Promise<ObjectBytes> {
    const bytes = await (range === undefined
      ? this.#store.get(key)
      : this.#store.getRange(key, range.offset, range.length));
    if (bytes.length > READ_SLOT_BYTES) return { bytes };
    // Only for what has come: a store that is silent keeps no slot from others.
    const slot = this.#free.pop() ?? (await new Promise<number>((resolve) => this.#waiting.push(resolve)));
    bytes.copy(inSlot(this.#room, slot, bytes.length));
    const { length } = bytes;
    giveBack(bytes);
    return { slot, length };
  }

  taken(slot: number): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#free.push(slot);
    else next(slot);
  }
}
