import { ALL_PAGES, PAGE_MASK_BYTES, type PageMask } from '../types/page-mask.ts';
import { asEpoch, BLOCK_BYTES, type EpochNumber, PAGE_BYTES, PAGES_PER_BLOCK } from '../types/units.ts';
import { Cut, CutLostError } from './cut.ts';
import type { Disk } from './disk.ts';
import { Epoch, isUntrusted } from './epoch.ts';
import { nextSetInAny, type PagedBitmap } from './paged-bitmap.ts';
import type { RawFile } from './raw-file.ts';
import type { PageRun } from './staging-log.ts';

/** A page run that differs between the volume's file and a cut: its bytes as of the cut are in a staging log. */
export type StagedRun = { log: string; position: number; page: number; count: number };

/** How a block's bytes as of a cut are put together, for a reader that has the files open itself. */
export type BlockAsOfCut = { absent: boolean; hydrating: boolean; staged: StagedRun[] };

/**
 * `more`: there are others behind these. `compareAll`: the blocks are all that hold data, and the caller must also look at
 * each block that the base has.
 */
export type ChangedBlocks = { blocks: number[]; more: boolean; compareAll: boolean };

/** What copy-before-write must not go beyond, and whom it tells when it would. */
export type StagingBounds = {
  /** It gives up the cuts, never the writes, past this many bytes of one volume's old pages. */
  stagingLimitBytes: number;
  /** Called when a cut's bytes can no longer be kept. */
  onCutLost: (boundary: EpochNumber, reason: string) => void;
};

/**
 * A volume's epochs and cuts: what was written since when, and the old bytes that a pending cut still needs. Everything
 * here is synchronous, and happens between two turns of the event loop.
 */
export class CopyBeforeWrite {
  readonly #disk: Disk;
  readonly #directory: string;
  #blocks: number;
  readonly #raw: RawFile;
  readonly #bounds: StagingBounds;
  #trustedFrom: EpochNumber;
  #epochs: Epoch[];
  #current: Epoch;
  #prepared: Epoch | undefined;
  #preparing: Promise<void> | undefined;
  #cuts: Cut[] = [];
  /** Of files that are no longer needed. */
  readonly #removals = new Set<Promise<void>>();

  /**
   * @param epochs all that there are, oldest first; at least one
   * @param trustedFrom dirty bits of epochs before this one cannot be believed
   */
  constructor(
    disk: Disk,
    directory: string,
    blocks: number,
    raw: RawFile,
    bounds: StagingBounds,
    epochs: Epoch[],
    trustedFrom: EpochNumber,
  ) {
    this.#disk = disk;
    this.#directory = directory;
    this.#blocks = blocks;
    this.#raw = raw;
    this.#bounds = bounds;
    this.#trustedFrom = trustedFrom;
    this.#epochs = epochs;
    this.#current = epochs[epochs.length - 1];
  }

  /** Old pages kept, in bytes. */
  get stagedBytes(): number {
    let bytes = 0;
    for (const epoch of this.#epochs) bytes += epoch.staging?.bytes ?? 0;
    return bytes;
  }

  /** Makes the files of the next epoch, so that neither the cut nor a write after it makes any. */
  prepare(): Promise<void> {
    if (this.#prepared !== undefined) return Promise.resolve();
    this.#preparing ??= this.#prepareNow().finally(() => {
      this.#preparing = undefined;
    });
    return this.#preparing;
  }

  async #prepareNow(): Promise<void> {
    const number = asEpoch(this.#current.number + 1);
    const epoch = await Epoch.createLater(this.#disk, this.#directory, number, this.#blocks);
    // The volume may have grown meanwhile.
    epoch.grow(this.#blocks);
    this.#prepared = epoch;
  }

  /**
   * The cut: a new epoch begins. Moves no data and costs the same whatever the size.
   * @returns the boundary by which the snapshot pipeline knows the cut
   */
  cut(): EpochNumber {
    const next = this.#prepared;
    if (next === undefined) throw new Error('a cut needs the files of its epoch: prepare first');
    this.#prepared = undefined;
    this.#cuts.push(this.#newCut(next.number, this.#epochs));
    this.#epochs = [...this.#epochs, next];
    this.#current = next;
    return next.number;
  }

  /** Takes up a cut again that was pending when the process ended. @returns why not, where it cannot be had */
  resume(boundary: EpochNumber): string | undefined {
    if (this.#cuts.some((cut) => cut.boundary === boundary)) return undefined;
    if (boundary <= this.#trustedFrom && this.#trustedFrom > 1) {
      return 'The machine lost power, or its disk refused what was written, before the snapshot was complete.';
    }
    const begun = this.#epochs.find((epoch) => epoch.number === boundary);
    if (begun === undefined) return 'The volume has no record of the cut.';
    // It is made with the epoch, and gone when the cut was given up: see lose.
    if (begun.staging === undefined) return 'Not all that was overwritten after the cut could be kept.';
    const sources = this.#epochs.filter((epoch) => epoch.number < boundary);
    this.#cuts.push(this.#newCut(boundary, sources));
    this.#cuts.sort((a, b) => a.boundary - b.boundary);
    return undefined;
  }

  /**
   * The blocks that may differ between the cut and its base, ascending from `from`, at most `most`.
   * @param since the base's boundary (1 for a volume's beginning)
   * @returns with `compareAll` when the dirty bits since then cannot be trusted
   */
  changedBlocks(boundary: EpochNumber, since: EpochNumber, from: number, most: number): ChangedBlocks {
    const cut = this.#liveCut(boundary);
    const compareAll = since < this.#trustedFrom;
    // Blocks that it did not want may have been overwritten since, unsaved.
    if (compareAll && !cut.everything) throw new CutLostError('The volume’s base was given up after the cut.');
    const epochs = this.#epochs.filter((epoch) => epoch.number >= since && epoch.number < boundary);
    const dirty = epochs.map((epoch) => epoch.dirty.bits);
    const logs = this.#epochs.filter((epoch) => epoch.number >= boundary).flatMap((epoch) => epoch.staging ?? []);
    const staged = logs.map((log) => log.blocks);
    const next = compareAll ? (at: number) => this.#nextWithData(at, staged) : (at: number) => nextSetInAny(dirty, at);
    const blocks: number[] = [];
    let at = next(from);
    for (; at !== -1 && blocks.length < most; at = next(at + 1)) blocks.push(at);
    return { blocks, more: at !== -1, compareAll };
  }

  /**
   * The pages of a block that may differ between the cut and its base: what is not among them is as in the base, in
   * every byte. All of them, where that is not known.
   */
  writtenPages(boundary: EpochNumber, since: EpochNumber, block: number): PageMask {
    if (since < this.#trustedFrom) return ALL_PAGES;
    const mask = new Uint8Array(PAGE_MASK_BYTES);
    for (const { number, dirty, written } of this.#epochs) {
      if (number < since || number >= boundary || !dirty.bits.get(block)) continue;
      if (written === undefined || !written.addTo(mask, block)) return ALL_PAGES;
    }
    return mask;
  }

  /** Where a write goes without being admitted: see LocalVolume. */
  wrote(from: number, to: number): void {
    this.#current.written?.mark(from, to);
  }

  /**
   * Where the cut's bytes of a block differ from the volume's file. To be asked *after* the file was read: a page that
   * was overwritten in between was staged before, so that it is in the answer.
   */
  stagedRuns(boundary: EpochNumber, block: number): StagedRun[] {
    this.#liveCut(boundary);
    const staged: StagedRun[] = [];
    const logs = this.#epochs.filter((epoch) => epoch.number >= boundary).flatMap((epoch) => epoch.staging ?? []);
    const touched = logs.filter((log) => log.blocks.get(block));
    if (touched.length > 0) {
      const first = block * PAGES_PER_BLOCK;
      for (let page = first; page < first + PAGES_PER_BLOCK; page += 1) {
        // The oldest log that has the page: it was saved at the first overwrite after the cut.
        for (const log of touched) {
          const position = log.pages.get(page);
          if (position === undefined) continue;
          const last = staged.at(-1);
          if (
            last?.log === log.path &&
            last.page + last.count === page &&
            last.position + last.count * PAGE_BYTES === position
          ) {
            last.count += 1;
          } else {
            staged.push({ log: log.path, position, page, count: 1 });
          }
          break;
        }
      }
    }
    return staged;
  }

  /** The block is safe elsewhere (stored, and in the journal): the guest may overwrite it freely. */
  captured(boundary: EpochNumber, block: number): void {
    this.#cuts.find((cut) => cut.boundary === boundary)?.captured(block);
  }

  /**
   * The cut is over. @param completed its snapshot is now the volume's base: older epochs are no longer needed. Else
   * what it owed passes to the next cut, by the epochs that stay.
   */
  finish(boundary: EpochNumber, completed: boolean): void {
    this.#cuts = this.#cuts.filter((cut) => cut.boundary !== boundary);
    if (completed) this.forgetBefore(boundary);
    const oldest = this.#cuts[0]?.boundary ?? Number.POSITIVE_INFINITY;
    for (const epoch of this.#epochs) if (epoch.number < oldest) this.#leave(epoch.dropStaging(this.#disk));
  }

  /**
   * Gives up all cuts: their snapshots end in `error`, with this reason.
   *
   * The old pages go with them, before the write goes on for which there was no room: by their absence the next process,
   * should this one end before the catalog knows, sees that the cuts cannot be had. (They would look whole to it, and
   * their snapshots would have bytes of later writes.)
   */
  lose(reason: string): void {
    const given = this.#cuts.filter((cut) => cut.lost === undefined);
    for (const cut of given) cut.lost = reason;
    for (const epoch of this.#epochs) {
      try {
        epoch.forsakeStaging(this.#disk);
      } catch {
        // A disk that removes nothing any more. This process knows, and the catalog is told now.
      }
    }
    for (const cut of given) this.#bounds.onCutLost(cut.boundary, reason);
  }

  /**
   * Whether what was read of a cut can be believed: to be asked when all of it has been read, and before its snapshot is
   * said to be complete.
   * @throws CutLostError
   */
  confirm(boundary: EpochNumber): void {
    for (const { number, staging } of this.#epochs) {
      if (number < boundary) continue;
      const error = staging?.writeBackError();
      // A page whose write-back failed may have left memory before it was read, and been read as something else.
      if (error !== undefined) this.lose(`the disk has refused old bytes of blocks: ${error.message}`);
    }
    this.#liveCut(boundary);
  }

  /** Drops the epochs before a base. The catalog has recorded the base already: after a crash the epochs stay, unused. */
  forgetBefore(boundary: EpochNumber): void {
    const retired = this.#epochs.filter((epoch) => epoch.number < boundary && epoch !== this.#current);
    this.#epochs = this.#epochs.filter((epoch) => !retired.includes(epoch));
    for (const cut of this.#cuts) cut.rebase(boundary);
    for (const epoch of retired) this.#leave(epoch.remove(this.#disk));
  }

  /** The next epoch's number; undefined where its files are not made yet (see prepare). */
  get prepared(): EpochNumber | undefined {
    return this.#prepared?.number;
  }

  /** Whether nothing that is stored is relied on. */
  get forgotten(): boolean {
    return isUntrusted(this.#trustedFrom, this.#epochs);
  }

  /** Gives up all that is known of what was written, and all cuts; whatever cut comes next wants every block. */
  forget(reason: string): void {
    const next = this.#prepared;
    if (next === undefined) throw new Error('to forget needs the files of a new epoch: prepare first');
    this.lose(reason);
    const retired = this.#epochs;
    this.#prepared = undefined;
    this.#epochs = [next];
    this.#current = next;
    this.#trustedFrom = next.number;
    for (const epoch of retired) this.#leave(epoch.remove(this.#disk));
    this.#leave(next.dropStaging(this.#disk));
  }

  /** Before the end: resolves when no file that is to go is left. */
  async settle(): Promise<void> {
    await this.#preparing?.catch(() => undefined);
    // Made for a cut that did not come: it would be an epoch at the next opening, and one more at each.
    if (this.#prepared !== undefined) this.#leave(this.#prepared.remove(this.#disk));
    this.#prepared = undefined;
    await Promise.all(this.#removals);
  }

  /** Numbers never come again: nothing waits for the removal of an epoch's files but the next opening of the volume. */
  #leave(removal: Promise<void>): void {
    // What could not be removed is found by that opening, and goes when the epoch does.
    const settled = removal
      .catch(() => undefined)
      .finally(() => {
        this.#removals.delete(settled);
      });
    this.#removals.add(settled);
  }

  /**
   * What must be in the files before bytes [from, to) of a block may change, in the order that a kill at any point
   * forgives: old pages, dirty bit; then the caller writes the data. Staged but not overwritten: the saved page equals
   * the volume's. Marked but not written: one block is compared for nothing.
   * @returns whether later writes to the block need not ask again, until the next cut
   */
  admit(block: number, from: number, to: number): boolean {
    const cut = this.#newestCutWanting(block);
    if (cut !== undefined) this.#stage(cut, from, to);
    if (!this.#current.dirty.bits.get(block)) this.#current.dirty.set(block);
    this.#current.written?.mark(from, to);
    return cut === undefined;
  }

  get hasCuts(): boolean {
    return this.#cuts.length > 0;
  }

  /**
   * Saves, with one write, what the writes to these ranges will overwrite: early is no harm, the pages are still as they
   * are. What cannot be saved so is left to each write.
   * @param ranges offset, length, offset, length … in bytes
   * @returns whether all is saved
   */
  stageAhead(ranges: readonly number[]): boolean {
    const runs: PageRun[] = [];
    const ahead = new Set<number>();
    for (let index = 0; index < ranges.length; index += 2) {
      const end = ranges[index] + ranges[index + 1];
      for (let at = ranges[index]; at < end; ) {
        const block = Math.floor(at / BLOCK_BYTES);
        const blockEnd = Math.min(end, (block + 1) * BLOCK_BYTES);
        const cut = this.#newestCutWanting(block);
        if (cut !== undefined) this.#collectRuns(cut, at, blockEnd, ahead, runs);
        at = blockEnd;
      }
    }
    if (runs.length === 0) return true;
    if (this.stagedBytes + ahead.size * PAGE_BYTES > this.#bounds.stagingLimitBytes) return false;
    try {
      this.#current.stagingLog(this.#disk).save(this.#raw, runs);
      return true;
    } catch {
      // The write that needs it tries again, and says what gives way.
      return false;
    }
  }

  #collectRuns(cut: Cut, from: number, to: number, ahead: Set<number>, runs: PageRun[]): void {
    const last = Math.ceil(to / PAGE_BYTES);
    let run: PageRun | undefined;
    for (let page = Math.floor(from / PAGE_BYTES); page < last; page += 1) {
      const saved = this.#epochs.some((epoch) => epoch.number >= cut.boundary && epoch.staging?.pages.has(page));
      if (saved || ahead.has(page)) {
        run = undefined;
        continue;
      }
      ahead.add(page);
      if (run === undefined) {
        run = { page, count: 0 };
        runs.push(run);
      }
      run.count += 1;
    }
  }

  /** Whether any cut must keep the block as it was. */
  wants(block: number): boolean {
    return this.#newestCutWanting(block) !== undefined;
  }

  /** The volume has grown to so many blocks. */
  grow(blocks: number): void {
    this.#blocks = blocks;
    for (const epoch of this.#epochs) epoch.grow(blocks);
    this.#prepared?.grow(blocks);
    for (const cut of this.#cuts) cut.grow(blocks);
  }

  async sync(): Promise<void> {
    const epochs = [...this.#epochs, ...(this.#prepared === undefined ? [] : [this.#prepared])];
    await Promise.all(epochs.flatMap((epoch) => [epoch.dirty.sync(), epoch.staging?.sync()]));
  }

  close(): void {
    for (const epoch of this.#epochs) epoch.close();
    this.#prepared?.close();
  }

  /** Saves the pages in [from, to) that are not in a log since the cut. */
  #stage(cut: Cut, from: number, to: number): void {
    const epochs = this.#epochs.filter((epoch) => epoch.number >= cut.boundary);
    const lastPage = Math.ceil(to / PAGE_BYTES);
    let page = Math.floor(from / PAGE_BYTES);
    while (page < lastPage) {
      if (epochs.some((epoch) => epoch.staging?.pages.has(page))) {
        page += 1;
        continue;
      }
      let run = 1;
      while (page + run < lastPage && !epochs.some((epoch) => epoch.staging?.pages.has(page + run))) run += 1;
      try {
        if (this.stagedBytes + run * PAGE_BYTES > this.#bounds.stagingLimitBytes) {
          this.lose(
            `more than ${this.#bounds.stagingLimitBytes} bytes of the volume were overwritten before they were stored`,
          );
          return;
        }
        this.#current.stagingLog(this.#disk).save(this.#raw, [{ page, count: run }]);
      } catch (error) {
        // The guest's write goes on; what gives way is the snapshot.
        this.lose(`the old bytes of a block could not be saved: ${(error as Error).message}`);
        return;
      }
      page += run;
    }
  }

  /**
   * The newest cut that wants the block decides: a page that is in a log since that cut is there for the older cuts
   * too, whose readers look through all logs since theirs.
   */
  #newestCutWanting(block: number): Cut | undefined {
    for (let index = this.#cuts.length - 1; index >= 0; index -= 1) {
      if (this.#cuts[index].wants(block)) return this.#cuts[index];
    }
    return undefined;
  }

  #newCut(boundary: EpochNumber, sources: readonly Epoch[]): Cut {
    return new Cut(boundary, sources, isUntrusted(this.#trustedFrom, sources), this.#blocks);
  }

  #liveCut(boundary: EpochNumber): Cut {
    const cut = this.#cuts.find((candidate) => candidate.boundary === boundary);
    if (cut === undefined) throw new Error(`the volume has no cut in flight at ${boundary}`);
    if (cut.lost !== undefined) throw new CutLostError(cut.lost);
    return cut;
  }

  #nextWithData(from: number, logs: readonly PagedBitmap[]): number {
    const data = from < this.#blocks ? this.#raw.nextData(from * BLOCK_BYTES) : undefined;
    const inFile = data === undefined ? -1 : Math.floor(data / BLOCK_BYTES);
    const staged = nextSetInAny(logs, from);
    if (inFile === -1) return staged;
    return staged === -1 ? inFile : Math.min(inFile, staged);
  }
}
