import type { DataKey } from '../encryption/data-key.ts';
import { PageCipher } from '../encryption/page-cipher.ts';
import type { PageMask } from '../types/page-mask.ts';
import { asBlock, BLOCK_BYTES, blockCount, type EpochNumber } from '../types/units.ts';
import { type BlockSource, requireSource } from './block-source.ts';
import { type BlockAsOfCut, type ChangedBlocks, CopyBeforeWrite } from './copy-before-write.ts';
import type { DiskFile } from './disk.ts';
import type { KnownCuts, ReadNow } from './engine.ts';
import type { Epoch } from './epoch.ts';
import { type Extent, findExtents, nextNonZero } from './extents.ts';
import { Flushes } from './flushes.ts';
import { Gate } from './gate.ts';
import { Hydration } from './hydration.ts';
import { PagedBitmap } from './paged-bitmap.ts';
import { RawFile } from './raw-file.ts';
import { openEpochs, syncUploads, whatRemains } from './recovery.ts';
import { inSteps, type RangeStep } from './steps.ts';
import type { VolumeEnvironment } from './volume-environment.ts';
import { underLock } from './volume-lock.ts';
import { NO_BOOT, readVolumeState, requireItsKey, SavedState } from './volume-state.ts';

/**
 * A live volume of the local engine. All its mutable state has this one owner, and everything that changes bytes or
 * bitmaps is synchronous, so that between two turns of the event loop the volume is always whole: that is why a hold has
 * no writes in flight to wait for, and why a cut is a handful of assignments.
 */
export class LocalVolume {
  #sizeBytes: number;
  #blocks: number;
  readonly #directory: string;
  readonly #environment: VolumeEnvironment;
  readonly #lock: DiskFile;
  readonly #raw: RawFile;
  readonly #saved: SavedState;
  readonly #history: CopyBeforeWrite;
  /** A set bit: writes to the block may go straight to the file (dirty already, no cut wants it, hydrated). */
  #passes: PagedBitmap;
  #hydration: Hydration | undefined;
  readonly #gate = new Gate();
  readonly #flushes: Flushes;
  /** After this nothing the volume says could be believed: every request fails until it is opened anew. */
  #fault: Error | undefined;

  private constructor(
    directory: string,
    environment: VolumeEnvironment,
    lock: DiskFile,
    saved: SavedState,
    raw: RawFile,
    epochs: Epoch[],
    hydration: Hydration | undefined,
    unsynced: boolean,
  ) {
    this.#flushes = new Flushes(() => this.#syncData(this.#hydration?.beginSync()), unsynced);
    const { sizeBytes, trustedFrom } = saved.state;
    this.#sizeBytes = sizeBytes;
    this.#blocks = blockCount(sizeBytes);
    this.#directory = directory;
    this.#environment = environment;
    this.#lock = lock;
    this.#raw = raw;
    this.#saved = saved;
    this.#history = new CopyBeforeWrite(
      environment.disk,
      directory,
      this.#blocks,
      this.#raw,
      environment,
      epochs,
      trustedFrom,
    );
    this.#passes = new PagedBitmap(this.#blocks);
    this.#hydration = hydration;
  }

  /**
   * Opens a volume, recovering from whatever happened since it was last open.
   * @param source where absent blocks come from; needed while the volume is hydrating
   * @param key of an encrypted volume
   * @param known by the catalog: after a power loss the epochs' own files may know of fewer cuts
   * @throws VolumeLockedError, WrongKeyError
   */
  static open(
    directory: string,
    environment: VolumeEnvironment,
    source: BlockSource | undefined,
    key: DataKey | undefined,
    known: KnownCuts,
  ): Promise<LocalVolume> {
    const { disk, bootId, isSuspect } = environment;
    return underLock(disk, directory, async (lock) => {
      const found = readVolumeState(disk, directory);
      const state = { ...found };
      requireItsKey(directory, state, key);
      const blocks = blockCount(state.sizeBytes);
      const cipher = key === undefined ? undefined : new PageCipher(key.volumeKey());
      const raw = RawFile.open(disk, directory, state.sizeBytes, 'read-write', cipher);
      const { powerLost, historyLost, marksLost } = whatRemains(disk, directory, state, raw, bootId, isSuspect);
      // Pages that the disk has refused may be in memory still, and would turn into older ones some day.
      if (powerLost) raw.forgetPages();
      const epochs = openEpochs(disk, directory, state, historyLost, known);
      const hydration = state.hydrating
        ? Hydration.open(disk, directory, blocks, marksLost, requireSource(source, directory))
        : undefined;
      // Killed: what an earlier process wrote and answered may be in the page cache alone, and the next flush, by whichever
      // client, must make it durable.
      const unsynced = !state.clean;
      const saved = new SavedState(disk, directory, found);
      // Before the first write: after a power loss from here on the volume must not look cleanly closed.
      await saved.save({ ...state, bootId, clean: false });
      return new LocalVolume(directory, environment, lock, saved, raw, epochs, hydration, unsynced);
    });
  }

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  get hydrating(): boolean {
    return this.#hydration !== undefined;
  }

  /** Why the volume refuses every request, where it does. */
  get fault(): string | undefined {
    return this.#fault?.message;
  }

  get isPartlyRemote(): boolean {
    return this.#hydration !== undefined;
  }

  get writesMayWait(): boolean {
    return this.#hydration !== undefined || this.#gate.opened !== undefined;
  }

  get savesOldPages(): boolean {
    return this.#history.hasCuts;
  }

  saveAhead(ranges: readonly number[]): void {
    // A write that waits may find another volume than this one.
    if (this.#fault === undefined && !this.writesMayWait) this.#history.stageAhead(ranges);
  }

  get hydratedBlocks(): number {
    return this.#hydration?.hydratedCount() ?? this.#blocks;
  }

  get stagedBytes(): number {
    return this.#history.stagedBytes;
  }

  readNow(target: Uint8Array, targetStart: number, length: number, offset: number): ReadNow {
    if (this.#fault !== undefined) throw this.#fault;
    if (this.#hydration !== undefined && !this.#hydration.hasRange(offset, length)) return 'remote';
    return this.#raw.readNow(target, targetStart, length, offset) ? 'done' : 'on disk';
  }

  bringNear(offset: number, length: number): Promise<void> {
    return this.#raw.bringNear(offset, length);
  }

  /** Reads into `target[targetStart, targetStart+length)`. Returns at once where it can; a promise where it must wait. */
  read(target: Uint8Array, targetStart: number, length: number, offset: number): void | Promise<void> {
    if (this.#fault !== undefined) throw this.#fault;
    if (this.#hydration !== undefined && !this.#hydration.hasRange(offset, length)) {
      return this.#hydration.readThrough(this.#raw, target, targetStart, length, offset);
    }
    this.#raw.read(target, targetStart, length, offset);
  }

  /** Writes bytes that lie in several buffers, one after the other, `length` in all. */
  write(sources: readonly Uint8Array[], length: number, offset: number): void | Promise<void> {
    if (this.#gate.opened === undefined && this.#fault === undefined && this.#passesRange(offset, length)) {
      this.#flushes.wrote();
      this.#history.wrote(offset, offset + length);
      return this.#raw.writeAll(sources, offset);
    }
    return this.#change(offset, length, () => this.#raw.writeAll(sources, offset));
  }

  /** Makes the range read as zeroes. @param keepAllocated NBD's NO_HOLE: later writes there shall not find a full disk */
  zero(offset: number, length: number, keepAllocated: boolean, isGone = () => false): void | Promise<void> {
    const step: RangeStep = (at, bytes) => this.#change(at, bytes, () => this.#raw.zero(at, bytes, keepAllocated));
    return this.#inSteps(offset, length, keepAllocated, step, isGone);
  }

  /** Gives back space. What is not on a page boundary, not fetched yet, or cannot be kept for a cut, may keep its bytes. */
  discard(offset: number, length: number, isGone = () => false): void | Promise<void> {
    const step = (at: number, bytes: number): void | Promise<void> => {
      const held = this.#gate.opened;
      if (held !== undefined) return held.then(() => step(at, bytes));
      const local = this.#hydration?.hasRange(at, bytes) ?? true;
      // Where there is no room for old pages a write would cost the cut; this need not be done.
      if (local && this.#history.stageAhead([at, bytes])) this.#change(at, bytes, () => this.#raw.discard(at, bytes));
    };
    return this.#inSteps(offset, length, false, step, isGone);
  }

  /** Resolves when every write that was answered before the call survives a power loss. */
  flush(): Promise<void> {
    if (this.#fault !== undefined) return Promise.reject(this.#fault);
    return this.#flushes.flush();
  }

  /** The stretches from `offset` on, merged, at most `most` of them. */
  extents(offset: number, length: number, most: number): Extent[] {
    return findExtents(this.#raw, this.#hydration, offset, length, most);
  }

  /** Closes the gate: writes that come now wait. None is in flight, since a write is never half done between turns. */
  hold(): void {
    if (this.#fault !== undefined) throw this.#fault;
    this.#gate.close();
  }

  release(): void {
    this.#gate.open();
  }

  /**
   * Makes the volume larger while it is in use; done again after a crash half way, it does no harm.
   * @throws ENOSPC …; then the volume is as it was
   */
  async grow(sizeBytes: number): Promise<void> {
    if (sizeBytes <= this.#sizeBytes) return;
    const { disk } = this.#environment;
    // The files first: a volume that says it is larger than its files would read past their end.
    await RawFile.grow(disk, this.#directory, sizeBytes);
    const blocks = blockCount(sizeBytes);
    // For this there may be no room.
    this.#hydration?.grow(blocks);
    await this.#saved.save({ sizeBytes });
    // In one turn: a cut finds all of it grown, or none.
    this.#history.grow(blocks);
    this.#passes.grow(blocks);
    this.#raw.extend(disk, this.#directory, sizeBytes);
    this.#sizeBytes = sizeBytes;
    this.#blocks = blocks;
  }

  /** Does beforehand what a cut would take time for. */
  prepareCut(): Promise<void> {
    return this.#history.prepare();
  }

  /**
   * The cut: a new epoch begins. The volume must be held (with all others of the set) and prepared.
   * @returns the boundary by which the snapshot pipeline knows the cut
   */
  cut(): EpochNumber {
    if (this.#gate.opened === undefined) throw new Error('a cut needs a held volume');
    const boundary = this.#history.cut();
    this.#passes = new PagedBitmap(this.#blocks);
    return boundary;
  }

  /** See CopyBeforeWrite.resume. */
  resumeCut(boundary: EpochNumber): string | undefined {
    this.#passes = new PagedBitmap(this.#blocks);
    return this.#history.resume(boundary);
  }

  /** See CopyBeforeWrite.changedBlocks. */
  changedBlocks(boundary: EpochNumber, since: EpochNumber, from: number, most: number): ChangedBlocks {
    return this.#history.changedBlocks(boundary, since, from, most);
  }

  /** See CopyBeforeWrite.writtenPages. */
  writtenPages(boundary: EpochNumber, since: EpochNumber, block: number): PageMask {
    return this.#history.writtenPages(boundary, since, block);
  }

  /** How a block's bytes as of a cut are put together; to be asked after the volume's file was read. */
  blockAsOfCut(boundary: EpochNumber, block: number): BlockAsOfCut {
    const hydration = this.#hydration;
    const absent = hydration !== undefined && !hydration.has(block);
    return { absent, hydrating: this.hydrating, staged: this.#history.stagedRuns(boundary, block) };
  }

  /** The block is safe elsewhere (stored, and in the journal): the guest may overwrite it freely. */
  captured(boundary: EpochNumber, block: number): void {
    this.#history.captured(boundary, block);
  }

  /**
   * To be asked when all of a cut has been read, before its snapshot is said to be complete.
   * @throws CutLostError where what was read may not be what there was
   */
  async confirmCut(boundary: EpochNumber): Promise<void> {
    const error = this.#fault === undefined ? this.#raw.writeBackError() : undefined;
    // Told once: the guest's next flush would not hear of it.
    if (error !== undefined) await this.#fail(error.message);
    this.#history.confirm(boundary);
  }

  /** The cut is over: its snapshot is the volume's new base (`completed`), or will never be. */
  finishCut(boundary: EpochNumber, completed: boolean): void {
    this.#history.finish(boundary, completed);
  }

  /**
   * Nothing that is stored may be relied on: pending cuts are lost, the next snapshot is to hold everything.
   * @throws when there is no room for the files of a new epoch; it may be asked again
   */
  async forgetHistory(reason: string): Promise<void> {
    this.#history.lose(reason);
    while (!this.#history.forgotten) {
      const next = this.#history.prepared;
      if (next === undefined) await this.#history.prepare();
      else {
        // Killed after this, the next opening believes no epoch before that one either.
        await this.#saved.save({ trustedFrom: next });
        // A cut has begun it meanwhile: it is one of those that are lost.
        if (this.#history.prepared !== next) continue;
        this.#history.forget(reason);
        this.#passes = new PagedBitmap(this.#blocks);
      }
    }
  }

  /** Drops the history before a base that the catalog has recorded. */
  forgetBefore(boundary: EpochNumber): void {
    this.#history.forgetBefore(boundary);
  }

  /** Fetches what is still only in the snapshot, in the background; resolves when all is local and durable. */
  async hydrate(shouldStop: () => boolean): Promise<void> {
    const hydration = this.#hydration;
    if (hydration === undefined) return;
    const whole = await hydration.fetchAll(this.#raw, shouldStop);
    if (!whole || this.#fault !== undefined) return;
    // The data first: once volume.json says that nothing is absent, the snapshot is never asked again. As a guest's flush is:
    // of two syncs at once the kernel tells one that the disk has refused, and the other that all is well.
    this.#flushes.wrote();
    await this.flush();
    if (shouldStop()) return;
    await this.#saved.save({ hydrating: false });
    this.#hydration = undefined;
    // A guest's sync that began before this still writes its marks.
    await this.#flushes.underWay();
    hydration.remove();
  }

  /** Syncs everything and marks the volume cleanly closed. */
  async close(): Promise<void> {
    this.release();
    await this.#history.settle();
    try {
      if (this.#fault === undefined) {
        this.#flushes.wrote();
        await this.flush();
        const history = this.#history.sync().then(() => syncUploads(this.#environment.disk, this.#directory));
        await history.catch(async (error: Error) => {
          throw await this.#fail(error.message);
        });
        await this.#environment.disk.syncDirectory(this.#directory);
        if (this.#fault !== undefined) throw this.#fault;
        // Last: clean says that dirty bits, staged pages and hydration marks can be trusted whatever the boot.
        await this.#saved.save({ clean: true });
      }
    } finally {
      // Whatever the disk says: a lock that stays would keep the volume from being opened again.
      this.#hydration?.close();
      this.#history.close();
      this.#raw.close();
      this.#lock.close();
    }
  }

  #passesRange(offset: number, length: number): boolean {
    const last = Math.floor((offset + length - 1) / BLOCK_BYTES);
    return this.#passes.hasAll(Math.floor(offset / BLOCK_BYTES), last);
  }

  /** A write that may have more to do first: wait at the gate, fetch, save old pages, mark. */
  #change(offset: number, length: number, apply: () => void): void | Promise<void> {
    if (this.#fault !== undefined) throw this.#fault;
    const held = this.#gate.opened;
    if (held !== undefined) return held.then(() => this.#change(offset, length, apply));
    const end = offset + length;
    const first = Math.floor(offset / BLOCK_BYTES);
    const last = Math.floor((end - 1) / BLOCK_BYTES);
    const hydration = this.#hydration;
    if (hydration !== undefined) {
      for (let block = first; block <= last; block += 1) {
        if (hydration.has(block)) continue;
        const whole = offset <= block * BLOCK_BYTES && end >= (block + 1) * BLOCK_BYTES;
        // A block that is overwritten whole need not be fetched, unless a cut wants its old bytes.
        if (whole && !this.#history.wants(block)) continue;
        // After the wait everything is looked at anew: the gate may have closed, a cut may have been made.
        return hydration.fetch(this.#raw, asBlock(block)).then(() => this.#change(offset, length, apply));
      }
    }
    for (let block = first; block <= last; block += 1) {
      const from = Math.max(offset, block * BLOCK_BYTES);
      const free = this.#history.admit(block, from, Math.min(end, (block + 1) * BLOCK_BYTES));
      if (free && (hydration?.has(block) ?? true)) this.#passes.set(block);
    }
    this.#flushes.wrote();
    apply();
    // After the data: a block marked as local whose bytes never came would lose the snapshot's bytes.
    if (hydration !== undefined) {
      for (let block = first; block <= last; block += 1) if (!hydration.has(block)) hydration.mark(block);
    }
  }

  #inSteps(offset: number, length: number, everywhere: boolean, step: RangeStep, isGone: () => boolean) {
    if (this.#fault !== undefined) throw this.#fault;
    const nextFrom = (at: number): number => (everywhere ? at : nextNonZero(this.#raw, this.#hydration, at));
    return inSteps(offset, length, nextFrom, step, () => this.stagedBytes, isGone);
  }

  /** @param settled writes the marks of what the sync has made durable */
  async #syncData(settled: (() => void | Promise<void>) | undefined): Promise<void> {
    // A flush that waited for the sync that was refused.
    if (this.#fault !== undefined) throw this.#fault;
    try {
      await this.#raw.sync();
      // Someone else has been told meanwhile (confirmCut); then this sync was not.
      if (this.#fault !== undefined) throw this.#fault;
      // The marks after the data: a mark that outlives a power loss must never outlive its bytes.
      await settled?.();
    } catch (error) {
      // The kernel reports a failed write-back once and then forgets the pages: a second sync would say yes to bytes
      // that are gone.
      throw await this.#fail((error as Error).message);
    }
  }

  /** From this turn on every request fails. @returns with what, when the next opening knows of it */
  async #fail(reason: string): Promise<Error> {
    if (this.#fault !== undefined) return this.#fault;
    const fault = new Error(`the volume failed to sync and is closed to all requests: ${reason}`);
    this.#fault = fault;
    // Any page that was not on the disk yet may be the one before from now on, as after a power loss: in what a cut has
    // still to store, and in what its base already has. So the next opening takes it for one.
    this.#history.lose(fault.message);
    this.#environment.onFault(fault.message);
    try {
      await this.#saved.save({ bootId: NO_BOOT, clean: false });
    } catch {
      // The same disk. Until the process ends it is remembered without that (isSuspect); where it is killed first,
      // nobody knows of the sync any more, since the kernel tells it once.
    }
    return fault;
  }
}
