import { type FileHandle, link, open, rename, rm } from 'node:fs/promises';
import path from 'node:path';
import { alignedBuffer, openDirectly } from '../objects/direct-write.ts';
import { asBlock, BLOCK_BYTES } from '../types/units.ts';
import type { DiskFile } from '../volumes/disk.ts';
import type { Captured } from './capture.ts';
import { captureWhole, type Storing } from './capture-whole.ts';
import type { SnapshotSource, Stride } from './snapshot-source.ts';

/** Each request costs the thread that asks more than its bytes do: large ones, and no guest waits for them here. */
const STRIDE: Stride = { runBlocks: 8, blocksAtOnce: 80 };
const WRITES_AT_ONCE = 4;
const BLOCKS_OF_A_WRITE = 4;
/** Those that are fetched, those that are gathered meanwhile, and those that are written. */
const ROOMS = STRIDE.blocksAtOnce + (1 + WRITES_AT_ONCE) * BLOCKS_OF_A_WRITE;
const BLOCKS_AT_ONCE = 65_536;
/** What file systems without links say. */
const NO_LINKS = new Set(['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS']);

/**
 * Writes a snapshot into a sparse raw file, as `dd` would have made it of the volume. Until it is whole, and on the disk, it
 * is called `IMAGE.partial`: from the first moment it has the size of a whole one.
 * @throws when the image, or its partial, is there already: neither is written over; of what it has made, nothing stays
 */
export async function exportImage(
  source: SnapshotSource,
  image: string,
  sizeBytes: number,
  onProgress: (doneBytes: number) => void,
): Promise<void> {
  const partial = `${image}.partial`;
  // Without the page cache, where that can be: the image is written once, and may be larger than all memory.
  const file = (await openDirectly(partial)) ?? (await open(partial, 'wx', 0o600));
  try {
    try {
      await writeImage(source, file, sizeBytes, onProgress);
      // Before it has its name: after a power loss, what has that name is whole.
      await file.sync();
    } finally {
      await file.close();
    }
    await giveName(partial, image);
  } catch (error) {
    await rm(partial, { force: true });
    throw error;
  }
}

/** @throws EEXIST when something has that name already */
async function giveName(partial: string, image: string): Promise<void> {
  // A rename would take the place of what has come there meanwhile; a link does not.
  try {
    await link(partial, image);
    await rm(partial);
  } catch (error) {
    if (!NO_LINKS.has((error as NodeJS.ErrnoException).code ?? '')) throw error;
    // Takes the name, if it is free.
    await (await open(image, 'wx', 0o600)).close();
    await rename(partial, image);
  }
  const directory = await open(path.dirname(image), 'r');
  await directory.sync().finally(() => directory.close());
}

/** Blocks that follow one another, and are to be written together. */
type Gathered = { firstBlock: number; blocks: Buffer[] };

async function writeImage(
  source: SnapshotSource,
  file: FileHandle,
  sizeBytes: number,
  onProgress: (doneBytes: number) => void,
): Promise<void> {
  // They are decoded where they are written from.
  const memory = alignedBuffer(ROOMS * BLOCK_BYTES);
  const rooms = Array.from({ length: ROOMS }, (_, at) => memory.subarray(at * BLOCK_BYTES, (at + 1) * BLOCK_BYTES));
  const roomOf = (): Buffer => {
    const room = rooms.pop();
    if (room === undefined) throw new Error('more blocks are in memory than there may be');
    return room;
  };
  const writing = new Set<Promise<void>>();
  let done = 0;
  const write = async ({ blocks, firstBlock }: Gathered): Promise<void> => {
    const { bytesWritten } = await file.writev(blocks, firstBlock * BLOCK_BYTES);
    const length = blocks.length * BLOCK_BYTES;
    // A disk that has just filled takes a part, and calls it no error.
    if (bytesWritten < length) throw new Error(`the disk is full: it took ${bytesWritten} of ${length} bytes`);
    rooms.push(...blocks);
    done += length;
    onProgress(done);
  };
  let gathered: Gathered | undefined;
  const flush = async (): Promise<void> => {
    if (gathered === undefined) return;
    const task = write(gathered).then(() => void writing.delete(task));
    task.catch(() => undefined);
    writing.add(task);
    gathered = undefined;
    // One that has failed stays among them: the next look finds it.
    while (writing.size >= WRITES_AT_ONCE) await Promise.race(writing);
  };
  try {
    await file.truncate(sizeBytes);
    for await (const { block, bytes } of source.blocks(asBlock(0), STRIDE, roomOf)) {
      if (gathered !== undefined && block !== gathered.firstBlock + gathered.blocks.length) await flush();
      gathered ??= { firstBlock: block, blocks: [] };
      gathered.blocks.push(bytes);
      if (gathered.blocks.length === BLOCKS_OF_A_WRITE) await flush();
    }
    await flush();
    await Promise.all(writing);
  } finally {
    await Promise.allSettled(writing);
  }
}

/** Stores a raw file's blocks; holes are not read. @param sizeBytes the snapshot's size, at least the file's */
export function importImage(file: DiskFile, sizeBytes: number, storing: Storing): Promise<Captured> {
  const whole = {
    blocks(from: number): number[] {
      const blocks: number[] = [];
      for (let at = from * BLOCK_BYTES; blocks.length < BLOCKS_AT_ONCE; ) {
        const data = at < file.size() ? file.nextData(at) : undefined;
        if (data === undefined) break;
        const block = Math.floor(data / BLOCK_BYTES);
        blocks.push(block);
        at = (block + 1) * BLOCK_BYTES;
      }
      return blocks;
    },
    read(blocks: readonly number[], target: Buffer): void {
      for (const [index, block] of blocks.entries()) {
        file.read(target, index * BLOCK_BYTES, BLOCK_BYTES, block * BLOCK_BYTES);
      }
    },
  };
  return captureWhole(whole, sizeBytes, storing);
}
