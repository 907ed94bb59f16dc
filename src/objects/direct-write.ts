import { constants } from 'node:fs';
import { type FileHandle, open, rm } from 'node:fs/promises';

/** What a device may ask of addresses, lengths and positions that are written without the page cache. */
const ALIGNMENT = 4096;
const ROOM_BYTES = 1024 * 1024;
const WEB_ASSEMBLY_PAGE_BYTES = 64 * 1024;
/** Smaller ones are not worth it. */
export const DIRECT_BYTES = 1024 * 1024;

/** Node has it; the types that are in use here do not. */
declare const WebAssembly: { Memory: new (size: { initial: number }) => { buffer: ArrayBuffer } };

const alignedMemory = new WeakSet<ArrayBufferLike>();
const PROBE = alignedBuffer(WEB_ASSEMBLY_PAGE_BYTES);
const spare: Buffer[] = [];

/** Makes a file for writing without the page cache. @returns undefined where the file system cannot do it */
export async function openDirectly(path: string): Promise<FileHandle | undefined> {
  const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_DIRECT;
  let file: FileHandle | undefined;
  try {
    file = await open(path, flags, 0o600);
    // Some say so at the open, some only at the first write, and some want a larger alignment.
    await file.write(PROBE, 0, ALIGNMENT, 0);
    await file.truncate(0);
    return file;
  } catch (error) {
    await file?.close();
    const cannot = (error as NodeJS.ErrnoException).code === 'EINVAL';
    // (Linux has made the file by the time that it refuses to open it so.)
    if (cannot || file !== undefined) await rm(path, { force: true });
    if (cannot) return undefined;
    throw error;
  }
}

/**
 * Makes a file of large pieces without the page cache (O_DIRECT): copying packs into it costs more than all else that is
 * done for them but compression, and would push out of memory what guests read. A piece that lies in an `alignedBuffer`,
 * from one of its pages on, is not copied at all.
 * @returns the file, open, and not synced; undefined where the file system cannot do it: then nothing was made
 */
export async function writeDirectly(path: string, pieces: readonly Uint8Array[]): Promise<FileHandle | undefined> {
  const file = await openDirectly(path);
  if (file === undefined) return undefined;
  const room = spare.pop() ?? alignedBuffer(ROOM_BYTES);
  try {
    let position = 0;
    let used = 0;
    for (const piece of pieces) {
      let at = 0;
      if (used === 0 && isAligned(piece)) {
        // From where it lies; what is left of it is less than a page.
        at = piece.byteLength - (piece.byteLength % ALIGNMENT);
        await writeAll(file, piece, at, position);
        position += at;
      }
      while (at < piece.byteLength) {
        const part = piece.subarray(at, at + ROOM_BYTES - used);
        room.set(part, used);
        at += part.byteLength;
        used += part.byteLength;
        if (used < ROOM_BYTES) continue;
        await writeAll(file, room, ROOM_BYTES, position);
        position += ROOM_BYTES;
        used = 0;
      }
    }
    if (used > 0) {
      // The end is written as a whole page, and cut off.
      const padded = Math.ceil(used / ALIGNMENT) * ALIGNMENT;
      room.fill(0, used, padded);
      await writeAll(file, room, padded, position);
      await file.truncate(position + used);
    }
    return file;
  } catch (error) {
    await file.close();
    throw error;
  } finally {
    spare.push(room);
  }
}

async function writeAll(file: FileHandle, bytes: Uint8Array, length: number, position: number): Promise<void> {
  for (let done = 0; done < length; ) {
    const { bytesWritten } = await file.write(bytes, done, length - done, position + done);
    if (bytesWritten < ALIGNMENT) throw new Error(`only ${bytesWritten} bytes of ${length - done} could be written`);
    // What follows must begin at a page again.
    done += bytesWritten - (bytesWritten % ALIGNMENT);
  }
}

/** A buffer that may be written from without the page cache. @param bytes a multiple of 64 KiB */
export function alignedBuffer(bytes: number): Buffer {
  // Memory of WebAssembly begins at a page of its own.
  const memory = new WebAssembly.Memory({ initial: bytes / WEB_ASSEMBLY_PAGE_BYTES });
  alignedMemory.add(memory.buffer);
  return Buffer.from(memory.buffer);
}

function isAligned(bytes: Uint8Array): boolean {
  return alignedMemory.has(bytes.buffer) && bytes.byteOffset % ALIGNMENT === 0;
}
