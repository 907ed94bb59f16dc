import type { DataKey } from '../encryption/data-key.ts';
import { PageCipher } from '../encryption/page-cipher.ts';
import { countPages, type PageMask, runsOf } from '../types/page-mask.ts';
import { PAGE_BYTES, PAGES_PER_BLOCK } from '../types/units.ts';
import type { BlockAsOfCut, StagedRun } from './copy-before-write.ts';
import type { Disk, DiskFile } from './disk.ts';
import { RawFile } from './raw-file.ts';

/** Pages of one block that are to be read. */
export type Piece = { block: number; pages: PageMask };

/** Pages that follow one another in the volume, and in the target; both places in bytes. */
type Stretch = { offset: number; bytes: number; at: number };

/**
 * Reads blocks as they were at a cut, from another thread than the one that owns the volume: the owner is asked only
 * where the old pages are, never for the bytes.
 */
export class CutFiles {
  readonly #disk: Disk;
  readonly #raw: RawFile;
  readonly #cipher: PageCipher | undefined;
  readonly #logs = new Map<string, DiskFile>();
  /** All blocks are known to have been local for some time: no fetch can have come between a read and its answer. */
  #settled: boolean;

  /**
   * @param key of an encrypted volume
   * @param hydrating whether the volume was when the owner was asked last (LocalVolume.hydrating); it never is again
   */
  constructor(disk: Disk, directory: string, sizeBytes: number, key: DataKey | undefined, hydrating: boolean) {
    this.#disk = disk;
    this.#settled = !hydrating;
    // Pages are put together as they are stored, and decrypted at the end.
    this.#raw = RawFile.open(disk, directory, sizeBytes, 'read-only', undefined);
    this.#cipher = key === undefined ? undefined : new PageCipher(key.volumeKey());
  }

  /**
   * @param pieces of which no two are of the same block
   * @param target takes the pieces' pages, one after the other
   * @param ask what the owner says of blocks (LocalVolume.blockAsOfCut), in their order
   * @returns for each piece whether its block is local; one that is not is as the snapshot says that the volume was made
   *   from
   */
  async read(
    pieces: readonly Piece[],
    target: Buffer,
    ask: (blocks: readonly number[]) => Promise<BlockAsOfCut[]>,
  ): Promise<boolean[]> {
    const stretches = layOut(pieces);
    const blocks = pieces.map(({ block }) => block);
    // First the file, then the question: a page overwritten after the read began was staged before, and is in the
    // answer. (The other way round, an overwrite between the two would be missed.)
    for (const piece of stretches) this.#readRaw(piece, target);
    const settledBefore = this.#settled;
    const answers = await ask(blocks);
    // A block that a fetch may have brought in between the read and the answer: local it stays, so read it again. The last
    // fetch of all may have been among them: that nothing is to be fetched any more says nothing of what was read before.
    const unsettled = settledBefore ? [] : [...blocks.keys()].filter((index) => !answers[index].absent);
    if (answers.some((answer) => !answer.hydrating)) this.#settled = true;
    if (unsettled.length > 0) {
      for (const index of unsettled) this.#readRaw(stretches[index], target);
      const again = await ask(unsettled.map((index) => blocks[index]));
      for (const [order, index] of unsettled.entries()) answers[index] = again[order];
    }
    for (const [index, answer] of answers.entries()) {
      for (const run of answer.staged) this.#readStaged(run, stretches[index], target);
    }
    for (const [index, answer] of answers.entries()) {
      if (answer.absent) continue;
      for (const { offset, bytes, at } of stretches[index]) {
        this.#cipher?.decrypt(target.subarray(at, at + bytes), offset / PAGE_BYTES);
      }
    }
    return answers.map((answer) => !answer.absent);
  }

  close(): void {
    this.#raw.close();
    this.#cipher?.close();
    for (const log of this.#logs.values()) log.close();
  }

  #readRaw(stretches: readonly Stretch[], target: Buffer): void {
    for (const { offset, bytes, at } of stretches) this.#raw.read(target, at, bytes, offset);
  }

  /** Puts the old pages over what was read, as far as they are wanted. */
  #readStaged(run: StagedRun, stretches: readonly Stretch[], target: Buffer): void {
    const start = run.page * PAGE_BYTES;
    for (const { offset, bytes, at } of stretches) {
      const from = Math.max(start, offset);
      const to = Math.min(start + run.count * PAGE_BYTES, offset + bytes);
      if (from < to) this.#log(run.log).read(target, at + from - offset, to - from, run.position + from - start);
    }
  }

  #log(path: string): DiskFile {
    let log = this.#logs.get(path);
    if (log === undefined) {
      log = this.#disk.open(path, 'read-only');
      this.#logs.set(path, log);
    }
    return log;
  }
}

/** @returns for each piece where its pages are in the volume, and where they come to lie */
function layOut(pieces: readonly Piece[]): Stretch[][] {
  let at = 0;
  return pieces.map(({ block, pages }) => {
    const start = at;
    at += countPages(pages) * PAGE_BYTES;
    let next = start;
    return runsOf(pages).map(({ page, count }) => {
      const stretch = { offset: (block * PAGES_PER_BLOCK + page) * PAGE_BYTES, bytes: count * PAGE_BYTES, at: next };
      next += stretch.bytes;
      return stretch;
    });
  });
}
