import { asEpoch, type EpochNumber } from '../types/units.ts';
import { BITMAP_HEADER_BYTES, BitmapFile } from './bitmap-file.ts';
import type { Disk } from './disk.ts';
import { StagingLog } from './staging-log.ts';
import { WrittenPages } from './written-pages.ts';

/**
 * The time between two cuts of a volume: which blocks were written in it, and the old bytes of those that a cut before
 * it still wants. Files: `epoch-00000007.dirty`, `epoch-00000007.staging`.
 *
 * A cut is nothing but the beginning of a new epoch. One that comes to nothing (another volume missed the deadline, the
 * server was killed before the catalog knew) needs no undoing: the next cut takes the union of all epochs since its
 * base.
 */
export class Epoch {
  readonly number: EpochNumber;
  readonly dirty: BitmapFile;
  /** Of an epoch that had no writes yet when this process took it up. */
  readonly written: WrittenPages | undefined;
  staging: StagingLog | undefined;
  readonly #path: string;

  private constructor(number: EpochNumber, path: string, dirty: BitmapFile, staging: StagingLog | undefined) {
    this.number = number;
    this.#path = path;
    this.dirty = dirty;
    this.written = dirty.bits.nextSet(0) === -1 ? new WrittenPages() : undefined;
    this.staging = staging;
  }

  static create(disk: Disk, directory: string, number: EpochNumber, blocks: number): Epoch {
    const path = epochPath(directory, number);
    return new Epoch(number, path, BitmapFile.create(disk, `${path}.dirty`, blocks), undefined);
  }

  /** The file of a new volume's first epoch, which no cut was before; not on the thread that calls. */
  static async createFirst(disk: Disk, directory: string, number: EpochNumber, blocks: number): Promise<void> {
    (await BitmapFile.createLater(disk, `${epochPath(directory, number)}.dirty`, blocks)).close();
  }

  /** With all files that a write after a cut needs; not on the thread that calls. @throws then nothing is left of it */
  static async createLater(disk: Disk, directory: string, number: EpochNumber, blocks: number): Promise<Epoch> {
    const path = epochPath(directory, number);
    // The dirty bits first: by them an epoch is found after a kill.
    const dirty = await BitmapFile.createLater(disk, `${path}.dirty`, blocks);
    try {
      return new Epoch(number, path, dirty, await StagingLog.createLater(disk, `${path}.staging`, blocks));
    } catch (error) {
      dirty.close();
      await disk.removeLater(`${path}.dirty`);
      throw error;
    }
  }

  static open(disk: Disk, directory: string, number: EpochNumber, blocks: number): Epoch {
    const path = epochPath(directory, number);
    const dirty = BitmapFile.open(disk, `${path}.dirty`, blocks);
    const staging = disk.exists(`${path}.staging`) ? StagingLog.open(disk, `${path}.staging`, blocks) : undefined;
    return new Epoch(number, path, dirty, staging);
  }

  /** All epochs that have files, oldest first. @throws NotABitmapError */
  static openAll(disk: Disk, directory: string, blocks: number): Epoch[] {
    const epochs: Epoch[] = [];
    for (const name of disk.list(directory)) {
      const digits = /^epoch-(\d+)\.dirty$/.exec(name)?.[1];
      if (digits === undefined) continue;
      const file = disk.open(`${directory}/${name}`, 'read-only');
      const begun = file.size() >= BITMAP_HEADER_BYTES;
      file.close();
      try {
        // Killed while the file was being made: the epoch had not begun, nothing was written in it.
        if (begun) epochs.push(Epoch.open(disk, directory, asEpoch(Number(digits)), blocks));
        else disk.remove(`${directory}/${name}`);
      } catch (error) {
        for (const epoch of epochs) epoch.close();
        throw error;
      }
    }
    return epochs;
  }

  /** Removes the files of all epochs, unread. @returns the newest one's number; 0 where there is none */
  static removeAll(disk: Disk, directory: string): number {
    let newest = 0;
    for (const name of disk.list(directory)) {
      const digits = /^epoch-(\d+)\.(?:dirty|staging)$/.exec(name)?.[1];
      if (digits === undefined) continue;
      newest = Math.max(newest, Number(digits));
      disk.remove(`${directory}/${name}`);
    }
    return newest;
  }

  /** The volume has grown to so many blocks. */
  grow(blocks: number): void {
    this.dirty.bits.grow(blocks);
    this.staging?.blocks.grow(blocks);
  }

  stagingLog(disk: Disk): StagingLog {
    this.staging ??= StagingLog.create(disk, `${this.#path}.staging`, this.dirty.bits.length);
    return this.staging;
  }

  /** At once for who asks this epoch; resolves when the file is gone. */
  dropStaging(disk: Disk): Promise<void> {
    const staging = this.staging;
    this.staging = undefined;
    return staging?.remove(disk) ?? Promise.resolve();
  }

  /** The old pages are not to be had any more, by whoever opens the volume next either (see CopyBeforeWrite.lose). */
  forsakeStaging(disk: Disk): void {
    const staging = this.staging;
    this.staging = undefined;
    staging?.removeNow(disk);
  }

  /** Resolves when the files are gone. The dirty bits are the last: by them an epoch is found after a kill. */
  async remove(disk: Disk): Promise<void> {
    const dropped = this.dropStaging(disk);
    this.dirty.close();
    await dropped;
    await disk.removeLater(`${this.#path}.dirty`);
  }

  close(): void {
    this.dirty.close();
    this.staging?.close();
  }
}

/** Until a base newer than a lost history exists, every block may have to be compared. @param epochs oldest first */
export function isUntrusted(trustedFrom: EpochNumber, epochs: readonly Epoch[]): boolean {
  return trustedFrom > 1 && epochs.length > 0 && epochs[0].number <= trustedFrom;
}

function epochPath(directory: string, number: EpochNumber): string {
  return `${directory}/epoch-${String(number).padStart(8, '0')}`;
}
