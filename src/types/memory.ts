import koffi from 'koffi';
import { addressOf } from './address.ts';

const madviseCall = koffi.load('libc.so.6').func('int madvise(uintptr_t address, size_t length, int advice)');
const NOT_NEEDED = 4;
const MEMORY_PAGE_BYTES = 4096;

const ROOM_STEP_BYTES = 64 * 1024;
/** Smaller ones cost little. */
const LEAST_ROOM_BYTES = 256 * 1024;
const MOST_KEPT_BYTES = 16 * 1024 * 1024;
/** Then the work is over for which they are kept. */
const KEPT_MILLISECONDS = 1000;

/** Rooms that nobody uses at the moment, those that came last at the end. */
const kept: ArrayBuffer[] = [];
let keptBytes = 0;
let releasing = false;
/** Those that roomFor has made. */
const rooms = new WeakSet<ArrayBufferLike>();

/**
 * A buffer for what is read from a store, with whatever bytes; who is done with it gives it back. Where memory comes from
 * the kernel each time, page by page, that took longer than all that was done with what was read: 1 GiB was hydrated with
 * three times the processor time.
 */
export function roomFor(length: number): Buffer {
  if (length < LEAST_ROOM_BYTES) return Buffer.allocUnsafe(length);
  const size = Math.ceil(length / ROOM_STEP_BYTES) * ROOM_STEP_BYTES;
  const at = kept.findLastIndex(({ byteLength }) => byteLength >= size && byteLength <= 2 * size);
  if (at === -1) {
    const room = Buffer.allocUnsafeSlow(size);
    rooms.add(room.buffer);
    return room.subarray(0, length);
  }
  const [room] = kept.splice(at, 1);
  keptBytes -= room.byteLength;
  return Buffer.from(room, 0, length);
}

/**
 * Gives a large buffer's memory back now; whoever looks at it afterwards finds it empty. Left to V8, each few blocks of
 * 512 KiB bring on a marking of the whole heap: a quarter of the processor time of an export went there.
 *
 * Small buffers lie in a pool that others use, too: those stay.
 */
export function giveBack(bytes: Buffer): void {
  const { buffer } = bytes;
  // Of two views of the same memory one was before.
  if (!(buffer instanceof ArrayBuffer) || buffer.detached) return;
  // As large as the pool are also the pieces in which an answer's body comes: those have theirs for themselves.
  if (buffer.byteLength <= Buffer.poolSize && bytes.byteLength < buffer.byteLength) return;
  if (!rooms.has(buffer)) {
    buffer.transfer(0);
    return;
  }
  const room = buffer.transfer();
  rooms.add(room);
  kept.push(room);
  keptBytes += room.byteLength;
  while (keptBytes > MOST_KEPT_BYTES) dropOldest();
  if (releasing) return;
  releasing = true;
  const release = (): void => {
    releasing = false;
    while (kept.length > 0) dropOldest();
  };
  setTimeout(release, KEPT_MILLISECONDS).unref();
}

/**
 * Lets the kernel have the memory of a buffer that stays, but for an odd page at either end: until it is written to again it
 * takes none, and reads as zeroes.
 * @throws never: where the kernel does not want it, all is as it was
 */
export function emptyPages(bytes: Buffer): void {
  const start = addressOf(bytes);
  const first = Math.ceil(start / MEMORY_PAGE_BYTES) * MEMORY_PAGE_BYTES;
  const end = Math.floor((start + bytes.byteLength) / MEMORY_PAGE_BYTES) * MEMORY_PAGE_BYTES;
  if (first < end) madviseCall(first, end - first, NOT_NEEDED);
}

function dropOldest(): void {
  const room = kept.shift();
  if (room === undefined) return;
  keptBytes -= room.byteLength;
  room.transfer(0);
}

/**
 * Copies all of a buffer to a place in another. Where threads share the memory, V8 copies a *whole* view word by word, in
 * case the other thread looks, at two thirds of the speed; part of a larger view it copies like any memory. Nobody else
 * may be at these bytes meanwhile.
 */
export function copyWhole(from: Buffer, to: Buffer, at: number): void {
  const { buffer, byteOffset, byteLength } = from;
  Buffer.from(buffer as ArrayBuffer).copy(to, at, byteOffset, byteOffset + byteLength);
}
