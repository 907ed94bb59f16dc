import type { SnapshotSource } from '../snapshots/snapshot-source.ts';
import { asBlock, BLOCK_BYTES } from '../types/units.ts';
import type { FetchedBlock } from './messages.ts';

/** One round of messages for so many. */
const BLOCKS_OF_A_BATCH = 4;
/** Two volumes are hydrated at once, and of each one batch is written while the next is fetched. */
const SLOTS = 4 * BLOCKS_OF_A_BATCH;

type Fetch = { blocks: AsyncGenerator<{ block: number; bytes: Buffer }>; slots: Set<number> };

/** Memory that the thread that fetches and the one that serves guests both see. */
export function newFetchRoom(): SharedArrayBuffer {
  return new SharedArrayBuffer(SLOTS * BLOCK_BYTES);
}

/** The place of one block in that memory. */
export function slotOf(room: SharedArrayBuffer, slot: number): Buffer {
  return Buffer.from(room, slot * BLOCK_BYTES, BLOCK_BYTES);
}

/**
 * Snapshots that volumes are restored from, read from one end to the other by a thread that gives way to guests: what the
 * store's client does with a block, and to inflate, decrypt and hash it, takes some milliseconds each.
 */
export class BlockFetches {
  readonly #room: SharedArrayBuffer;
  readonly #free = Array.from({ length: SLOTS }, (_, slot) => slot);
  readonly #waiting: ((slot: number) => void)[] = [];
  readonly #running = new Map<number, Fetch>();

  /** @param room see newFetchRoom */
  constructor(room: SharedArrayBuffer) {
    this.#room = room;
  }

  begin(fetch: number, source: SnapshotSource, from: number): void {
    this.#running.set(fetch, { blocks: source.blocks(asBlock(from)), slots: new Set() });
  }

  /** @returns the next blocks, ascending; none is the end */
  async next(fetch: number): Promise<FetchedBlock[]> {
    const running = this.#running.get(fetch);
    if (running === undefined) return [];
    const batch: FetchedBlock[] = [];
    // Who has some does not wait for more: all who wait would wait for each other.
    while (batch.length < BLOCKS_OF_A_BATCH && (batch.length === 0 || this.#free.length > 0)) {
      const slot = await this.#take();
      if (this.#running.get(fetch) !== running) {
        this.#give(slot);
        return [];
      }
      running.slots.add(slot);
      const { value, done } = await running.blocks.next();
      // Ended meanwhile: what it had is given back already.
      if (this.#running.get(fetch) !== running) return [];
      if (done) {
        this.written(fetch, [slot]);
        break;
      }
      value.bytes.copy(slotOf(this.#room, slot));
      batch.push({ block: value.block, slot });
    }
    return batch;
  }

  /** The blocks are where they belong: their slots are free. */
  written(fetch: number, slots: readonly number[]): void {
    const running = this.#running.get(fetch);
    for (const slot of slots) if (running?.slots.delete(slot)) this.#give(slot);
  }

  /** Nobody looks at its blocks any more. */
  end(fetch: number): void {
    const running = this.#running.get(fetch);
    if (running === undefined) return;
    this.#running.delete(fetch);
    for (const slot of running.slots) this.#give(slot);
    void running.blocks.return(undefined).catch(() => undefined);
  }

  async #take(): Promise<number> {
    return this.#free.pop() ?? new Promise((resolve) => this.#waiting.push(resolve));
  }

  #give(slot: number): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#free.push(slot);
    else next(slot);
  }
}
