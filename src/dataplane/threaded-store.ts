import { MeasuredStore, type StoreFigures } from '../objects/measured-store.ts';
import {
  ObjectNotFoundError,
  type ObjectReader,
  ObjectStoreRefusedError,
  ObjectTooShortError,
} from '../objects/object-store.ts';
import { isInNetwork, openObjectStore } from '../objects/open-store.ts';
import { copyWhole, roomFor } from '../types/memory.ts';
import type { ObjectRead, ReadMethods, ReadThreadData, WorkerSettings } from './messages.ts';
import type { RpcPeer } from './rpc.ts';
import { inSlot, newReadRoom, READ_SLOT_BYTES } from './slot-reads.ts';
import { startThread } from './start-thread.ts';

/** The store as the thread that serves guests reads from it, and how often it was asked. */
export type GuestsStore = { store: ObjectReader; figures: () => Promise<StoreFigures> };

/**
 * Opens the store for the thread that serves guests. Of one in a network another thread is the client, from the beginning
 * on: to load it takes a tenth of a second, which the first read is not to wait for.
 */
export async function openForGuests(settings: WorkerSettings): Promise<GuestsStore> {
  if (!isInNetwork(settings.objectStore)) {
    // One attempt: who waits for a read is patient for so long in all.
    const store = new MeasuredStore(await openObjectStore(settings.objectStore, { attempts: 1 }));
    return { store, figures: async () => store.figures };
  }
  const room = newReadRoom();
  const data = { settings, readRoom: room } satisfies Omit<ReadThreadData, 'channel'>;
  const peer = startThread<ReadMethods>(new URL('./read-thread.ts', import.meta.url), data, 8, {});
  return {
    store: new ThreadedStore(settings.objectStore, peer, room),
    figures: () => peer.call('storeFigures', {}),
  };
}

/** Reads from a store by way of another thread: see SlotReads. */
export class ThreadedStore implements ObjectReader {
  readonly url: string;
  readonly #peer: Pick<RpcPeer<ReadMethods>, 'call' | 'tell'>;
  readonly #room: SharedArrayBuffer;

  /** @param room the thread's */
  constructor(url: string, peer: Pick<RpcPeer<ReadMethods>, 'call' | 'tell'>, room: SharedArrayBuffer) {
    this.url = url;
    this.#peer = peer;
    this.#room = room;
  }

  async get(key: string): Promise<Buffer> {
    return this.#read({ key, range: undefined }, roomFor);
  }

  async getRange(key: string, offset: number, length: number): Promise<Buffer> {
    const target = roomFor(length);
    const pieces: Promise<Buffer>[] = [];
    for (let at = 0; at < length; at += READ_SLOT_BYTES) {
      const bytes = Math.min(READ_SLOT_BYTES, length - at);
      const range = { offset: offset + at, length: bytes };
      pieces.push(this.#read({ key, range }, () => target.subarray(at, at + bytes)));
    }
    await Promise.all(pieces);
    return target;
  }

  /** @param roomOf where so many bytes are to go */
  async #read(order: ObjectRead, roomOf: (length: number) => Buffer): Promise<Buffer> {
    const found = await this.#peer.call('read', order).catch((error: Error) => {
      throw asStoreError(this.url, order.key, error);
    });
    if ('bytes' in found) return Buffer.from(found.bytes);
    const target = roomOf(found.length);
    copyWhole(inSlot(this.#room, found.slot, found.length), target, 0);
    this.#peer.tell('taken', { slot: found.slot });
    return target;
  }
}

/** What a store's failure was before it came from another thread: what is final must not be tried for long. */
function asStoreError(url: string, key: string, error: Error): Error {
  switch (error.name) {
    case 'ObjectNotFoundError':
      return new ObjectNotFoundError(url, key);
    case 'ObjectTooShortError':
      return new ObjectTooShortError(url, key);
    case 'ObjectStoreRefusedError':
      return new ObjectStoreRefusedError(error.message);
    default:
      return error;
  }
}
