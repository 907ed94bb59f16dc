import { BLOCK_BYTES, type BlockIndex, PAGE_BYTES } from '../types/units.ts';
import type { Disk, DiskFile } from './disk.ts';
import type { BlockAsOfCut } from './local-volume.ts';
import { RawFile } from './raw-file.ts';

/**
 * Reads blocks as they were at a cut, from another thread than the one that owns the volume: the owner is asked only
 * where the old pages are, never for the bytes.
 */
export class CutFiles {
  readonly #disk: Disk;
  readonly #raw: RawFile;
  readonly #logs = new Map<string, DiskFile>();

  constructor(disk: Disk, directory: string, sizeBytes: number) {
    this.#disk = disk;
    this.#raw = RawFile.open(disk, directory, sizeBytes, 'read-only');
  }

  /**
   * @param ask what the owner says of the block (LocalVolume.blockAsOfCut)
   * @param target takes the block's 512 KiB
   * @returns false when the block is not local: then it is as the snapshot says that the volume was made from
   */
  async read(
    block: BlockIndex,
    target: Uint8Array,
    ask: (block: BlockIndex) => Promise<BlockAsOfCut>,
  ): Promise<boolean> {
    // First the file, then the question: a page overwritten after the read began was staged before, and is in the
    // answer. (The other way round, an overwrite between the two would be missed.)
    this.#raw.read(target, 0, BLOCK_BYTES, block * BLOCK_BYTES);
    let answer = await ask(block);
    if (answer.absent) return false;
    if (answer.unsettled) {
      // It may have become local between the read and the answer. Local it stays: read again.
      this.#raw.read(target, 0, BLOCK_BYTES, block * BLOCK_BYTES);
      answer = await ask(block);
    }
    for (const run of answer.staged) {
      const at = (run.page * PAGE_BYTES) % BLOCK_BYTES;
      this.#log(run.log).read(target, at, run.count * PAGE_BYTES, run.position);
    }
    return true;
  }

  close(): void {
    this.#raw.close();
    for (const log of this.#logs.values()) log.close();
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
