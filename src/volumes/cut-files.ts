import type { DataKey } from '../encryption/data-key.ts';
import { PageCipher } from '../encryption/page-cipher.ts';
import { BLOCK_BYTES, PAGE_BYTES, PAGES_PER_BLOCK } from '../types/units.ts';
import type { BlockAsOfCut } from './copy-before-write.ts';
import type { Disk, DiskFile } from './disk.ts';
import { RawFile } from './raw-file.ts';

/**
 * Reads blocks as they were at a cut, from another thread than the one that owns the volume: the owner is asked only
 * where the old pages are, never for the bytes.
 */
export class CutFiles {
  readonly #disk: Disk;
  readonly #raw: RawFile;
  readonly #cipher: PageCipher | undefined;
  readonly #logs = new Map<string, DiskFile>();

  /** @param key of an encrypted volume */
  constructor(disk: Disk, directory: string, sizeBytes: number, key: DataKey | undefined) {
    this.#disk = disk;
    // Pages are put together as they are stored, and decrypted at the end.
    this.#raw = RawFile.open(disk, directory, sizeBytes, 'read-only', undefined);
    this.#cipher = key === undefined ? undefined : new PageCipher(key.volumeKey());
  }

  /**
   * @param target takes 512 KiB for each of the blocks, one after the other
   * @param ask what the owner says of blocks (LocalVolume.blockAsOfCut), in their order
   * @returns for each block whether it is local; one that is not is as the snapshot says that the volume was made from
   */
  async read(
    blocks: readonly number[],
    target: Buffer,
    ask: (blocks: readonly number[]) => Promise<BlockAsOfCut[]>,
  ): Promise<boolean[]> {
    // First the file, then the question: a page overwritten after the read began was staged before, and is in the
    // answer. (The other way round, an overwrite between the two would be missed.)
    for (const [index, block] of blocks.entries()) this.#readRaw(block, target, index);
    const answers = await ask(blocks);
    // A block that a fetch may have brought in between the read and the answer: local it stays, so read it again.
    const unsettled = [...blocks.keys()].filter((index) => answers[index].unsettled && !answers[index].absent);
    if (unsettled.length > 0) {
      for (const index of unsettled) this.#readRaw(blocks[index], target, index);
      const again = await ask(unsettled.map((index) => blocks[index]));
      for (const [order, index] of unsettled.entries()) answers[index] = again[order];
    }
    for (const [index, answer] of answers.entries()) {
      for (const run of answer.staged) {
        const at = index * BLOCK_BYTES + ((run.page * PAGE_BYTES) % BLOCK_BYTES);
        this.#log(run.log).read(target, at, run.count * PAGE_BYTES, run.position);
      }
    }
    for (const [index, answer] of answers.entries()) {
      if (answer.absent) continue;
      const bytes = target.subarray(index * BLOCK_BYTES, (index + 1) * BLOCK_BYTES);
      this.#cipher?.decrypt(bytes, blocks[index] * PAGES_PER_BLOCK);
    }
    return answers.map((answer) => !answer.absent);
  }

  close(): void {
    this.#raw.close();
    this.#cipher?.close();
    for (const log of this.#logs.values()) log.close();
  }

  #readRaw(block: number, target: Buffer, index: number): void {
    this.#raw.read(target, index * BLOCK_BYTES, BLOCK_BYTES, block * BLOCK_BYTES);
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
