import {
  asBlock,
  asEpoch,
  BLOCK_BYTES,
  blockCount,
  type EpochNumber,
  PAGE_BYTES,
  PAGES_PER_BLOCK,
} from '../types/units.ts';
import type { BlockSource } from './block-source.ts';
import { Cut } from './cut.ts';
import type { Disk, DiskFile } from './disk.ts';
import { Epoch } from './epoch.ts';
import { Hydration } from './hydration.ts';
import { PagedBitmap } from './paged-bitmap.ts';
import { RawFile } from './raw-file.ts';
import { readVolumeState, type VolumeState, writeVolumeState } from './volume-state.ts';

/** Zeroing and discarding go in steps of this many bytes, so that a request for gigabytes does not hold up the others. */
const STEP_BYTES = 64 * BLOCK_BYTES;

/** What an open volume needs from outside. */
export type VolumeEnvironment = {
  disk: Disk;
  /** The machine's boot; another id than last time means that the page cache was lost. */
  bootId: string;
  /** Copy-before-write gives up the cuts, never the writes, past this many bytes of one volume's old pages. */
  stagingLimitBytes: number;
  /** Called when a cut's bytes can no longer be kept. */
  onCutLost: (boundary: EpochNumber, reason: string) => void;
};

/** One stretch of a volume, for NBD's base:allocation. */
export type Extent = { length: number; hole: boolean };

/** A page run that differs between the volume's file and a cut: its bytes as of the cut are in a staging log. */
export type StagedRun = { log: string; position: number; page: number; count: number };

/** How a block's bytes as of a cut are put together, for a reader that has the files open itself. */
export type BlockAsOfCut = { absent: boolean; unsettled: boolean; staged: StagedRun[] };

/**
 * A live volume of the local engine. All its mutable state has this one owner, and everything that changes bytes or
 * bitmaps is synchronous, so that between two turns of the event loop the volume is always whole: that is why a hold has
 * no writes in flight to wait for, and why a cut is a handful of assignments.
 */
export class LocalVolume {
  readonly sizeBytes: number;
  readonly #blocks: number;
  readonly #directory: string;
  readonly #environment: VolumeEnvironment;
  readonly #lock: DiskFile;
  readonly #raw: RawFile;
  #state: VolumeState;
  #epochs: Epoch[];
  #current: Epoch;
  #prepared: Epoch | undefined;
  #cuts: Cut[] = [];
  /** A set bit: writes to the block may go straight to the file (dirty already, no cut wants it, hydrated). */
  #passes: PagedBitmap;
  #hydration: Hydration | undefined;
  #gate: { opened: Promise<void>; open: () => void } | undefined;
  #unsynced = false;
  #syncing: Promise<void> | undefined;
  #syncQueued: Promise<void> | undefined;
  /** After this nothing the volume says could be believed: every request fails until it is opened anew. */
  #fault: Error | undefined;

  private constructor(
    directory: string,
    environment: VolumeEnvironment,
    lock: DiskFile,
    state: VolumeState,
    epochs: Epoch[],
    current: Epoch,
    hydration: Hydration | undefined,
  ) {
    this.sizeBytes = state.sizeBytes;
    this.#blocks = blockCount(state.sizeBytes);
    this.#directory = directory;
    this.#environment = environment;
    this.#lock = lock;
    this.#raw = RawFile.open(environment.disk, directory, state.sizeBytes, 'read-write');
    this.#state = state;
    this.#epochs = epochs;
    this.#current = current;
    this.#passes = new PagedBitmap(this.#blocks);
    this.#hydration = hydration;
  }

  /**
   * Makes the files of a new volume; durable when it returns.
   * @param restored whether its blocks will come from a snapshot
   */
  static create(
    disk: Disk,
    directory: string,
    volume: { volumeId: string; sizeBytes: number; restored: boolean; bootId: string },
  ): void {
    if (volume.sizeBytes % BLOCK_BYTES !== 0)
      throw new Error(`a volume is a whole number of blocks, not ${volume.sizeBytes} bytes`);
    // A directory without volume.json is one whose making was cut short: start over.
    disk.removeTree(directory);
    disk.makeDirectory(directory);
    const blocks = blockCount(volume.sizeBytes);
    RawFile.create(disk, directory, volume.sizeBytes);
    const first = asEpoch(1);
    Epoch.create(disk, directory, first, blocks).close();
    if (volume.restored) Hydration.create(disk, directory, blocks);
    disk.open(`${directory}/lock`, 'create').close();
    // Last: its presence says that the rest is whole.
    writeVolumeState(disk, directory, {
      volumeId: volume.volumeId,
      sizeBytes: volume.sizeBytes,
      bootId: volume.bootId,
      clean: true,
      trustedFrom: first,
      hydrating: volume.restored,
    });
  }

  /**
   * Opens a volume, recovering from whatever happened since it was last open.
   * @param source where absent blocks come from; needed while the volume is hydrating
   * @throws when another process has the volume open
   */
  static open(directory: string, environment: VolumeEnvironment, source: BlockSource | undefined): LocalVolume {
    const { disk, bootId } = environment;
    const lock = disk.open(`${directory}/lock`, 'read-write');
    if (!lock.tryLock()) {
      lock.close();
      throw new VolumeLockedError(directory);
    }
    const state = readVolumeState(disk, directory);
    const blocks = blockCount(state.sizeBytes);
    const epochs = Epoch.openAll(disk, directory, blocks);
    const powerLost = !state.clean && state.bootId !== bootId;
    if (powerLost || epochs.length === 0) {
      // What was not synced may be gone: dirty bits, staged pages, both. From here on a new epoch can be trusted; what
      // came before is found by comparing hashes, and cuts that were pending are lost.
      const next = asEpoch(Math.max(state.trustedFrom, epochs.at(-1)?.number ?? 0) + 1);
      for (const epoch of epochs.splice(0)) epoch.remove(disk);
      epochs.push(Epoch.create(disk, directory, next, blocks));
      state.trustedFrom = next;
    }
    const hydration = state.hydrating
      ? Hydration.open(disk, directory, blocks, powerLost, requireSource(source, directory))
      : undefined;
    state.bootId = bootId;
    state.clean = false;
    // Before the first write: after a power loss from here on the volume must not look cleanly closed.
    writeVolumeState(disk, directory, state);
    const current = epochs[epochs.length - 1];
    return new LocalVolume(directory, environment, lock, state, epochs, current, hydration);
  }

  get hydrating(): boolean {
    return this.#hydration !== undefined;
  }

  get readsMayWait(): boolean {
    return this.#hydration !== undefined;
  }

  get hydratedBlocks(): number {
    return this.#hydration?.hydratedCount() ?? this.#blocks;
  }

  get stagedBytes(): number {
    let bytes = 0;
    for (const epoch of this.#epochs) bytes += epoch.staging?.bytes ?? 0;
    return bytes;
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
    if (this.#gate === undefined && this.#passesRange(offset, length)) {
      this.#unsynced = true;
      if (sources.length === 1) this.#raw.write(sources[0], 0, length, offset);
      else this.#raw.writeAll(sources, offset);
      return;
    }
    return this.#change(offset, length, () => this.#raw.writeAll(sources, offset));
  }

  /** Makes the range read as zeroes. @param keepAllocated NBD's NO_HOLE: later writes there shall not find a full disk */
  zero(offset: number, length: number, keepAllocated: boolean): void | Promise<void> {
    return this.#inSteps(offset, length, (at, bytes) => {
      if (!keepAllocated && this.#isHole(at, bytes)) return;
      return this.#change(at, bytes, () => this.#raw.zero(at, bytes, keepAllocated));
    });
  }

  /** Gives back space. What is not on a page boundary, or not yet fetched from a snapshot, may keep its bytes. */
  discard(offset: number, length: number): void | Promise<void> {
    return this.#inSteps(offset, length, (at, bytes) => {
      if (this.#isHole(at, bytes)) return;
      if (this.#hydration !== undefined && !this.#hydration.hasRange(at, bytes)) return;
      return this.#change(at, bytes, () => this.#raw.discard(at, bytes));
    });
  }

  /** Resolves when every write that was answered before the call survives a power loss. */
  flush(): Promise<void> {
    if (this.#fault !== undefined) return Promise.reject(this.#fault);
    if (!this.#unsynced) return this.#syncing ?? Promise.resolve();
    if (this.#syncing === undefined) return this.#sync();
    // A sync is under way that began before the latest write: wait for it, then one more serves all who wait.
    this.#syncQueued ??= this.#syncing
      .catch(() => undefined)
      .then(() => {
        this.#syncQueued = undefined;
        return this.flush();
      });
    return this.#syncQueued;
  }

  /** The stretches from `offset` on, merged, at most `most` of them. */
  extents(offset: number, length: number, most: number): Extent[] {
    const extents: Extent[] = [];
    const end = offset + length;
    let at = offset;
    while (at < end) {
      const absentUntil = this.#hydration?.absentUntil(at, end) ?? at;
      let next: number;
      let hole = false;
      if (absentUntil > at) {
        next = absentUntil;
      } else {
        const presentUntil = this.#hydration?.presentUntil(at, end) ?? end;
        const data = Math.min(this.#raw.nextData(at) ?? presentUntil, presentUntil);
        hole = data > at;
        next = hole ? data : Math.min(this.#raw.nextHole(at), presentUntil);
      }
      const last = extents.at(-1);
      if (last !== undefined && last.hole === hole) last.length += next - at;
      else if (extents.length === most) break;
      else extents.push({ length: next - at, hole });
      at = next;
    }
    return extents;
  }

  /** Makes the files of the next epoch, so that the cut itself makes none. */
  prepareCut(): void {
    this.#prepared ??= Epoch.create(
      this.#environment.disk,
      this.#directory,
      asEpoch(this.#current.number + 1),
      this.#blocks,
    );
  }

  /** Closes the gate: writes that come now wait. None is in flight, since a write is never half done between turns. */
  hold(): void {
    if (this.#fault !== undefined) throw this.#fault;
    if (this.#gate !== undefined) throw new Error('the volume is held already');
    let open = (): void => undefined;
    const opened = new Promise<void>((resolve) => {
      open = resolve;
    });
    this.#gate = { opened, open };
  }

  release(): void {
    const gate = this.#gate;
    this.#gate = undefined;
    gate?.open();
  }

  /**
   * The cut: a new epoch begins. Moves no data and costs the same whatever the size.
   * The volume must be held (with all others of the set) and prepared.
   * @returns the boundary by which the snapshot pipeline knows the cut
   */
  cut(): EpochNumber {
    const next = this.#prepared;
    if (next === undefined || this.#gate === undefined) throw new Error('a cut needs a prepared and held volume');
    this.#prepared = undefined;
    this.#cuts.push(this.#newCut(next.number, this.#epochs));
    this.#epochs = [...this.#epochs, next];
    this.#current = next;
    this.#passes = new PagedBitmap(this.#blocks);
    return next.number;
  }

  /** Takes up a cut again that was pending when the process ended. @returns why not, where it cannot be had */
  resumeCut(boundary: EpochNumber): string | undefined {
    if (this.#cuts.some((cut) => cut.boundary === boundary)) return undefined;
    if (boundary <= this.#state.trustedFrom && this.#state.trustedFrom > 1) {
      return 'The machine lost power before the snapshot was complete, and the bytes of its instant with it.';
    }
    if (!this.#epochs.some((epoch) => epoch.number >= boundary)) return 'The volume has no record of the cut.';
    const sources = this.#epochs.filter((epoch) => epoch.number < boundary);
    this.#cuts.push(this.#newCut(boundary, sources));
    this.#cuts.sort((a, b) => a.boundary - b.boundary);
    this.#passes = new PagedBitmap(this.#blocks);
    return undefined;
  }

  /**
   * The blocks that may differ between the cut and its base, ascending from `from`, at most `most`.
   * @param since the base's boundary (1 for a volume's beginning)
   * @returns `compareAll` when the dirty bits since then cannot be trusted: then the blocks are all that hold data, and
   *   the caller must also look at each block that the base has
   */
  changedBlocks(
    boundary: EpochNumber,
    since: EpochNumber,
    from: number,
    most: number,
  ): { blocks: number[]; compareAll: boolean } {
    const cut = this.#liveCut(boundary);
    const compareAll = since < this.#state.trustedFrom;
    const epochs = this.#epochs.filter((epoch) => epoch.number >= since && epoch.number < boundary);
    const next = compareAll
      ? (at: number) => this.#nextWithData(at, cut.boundary)
      : (at: number) =>
          nextSetInAny(
            epochs.map((epoch) => epoch.dirty.bits),
            at,
          );
    const blocks: number[] = [];
    for (let at = next(from); at !== -1 && blocks.length < most; at = next(at + 1)) blocks.push(at);
    return { blocks, compareAll };
  }

  /**
   * Where the cut's bytes of a block differ from the volume's file. To be asked *after* the file was read: a page that
   * was overwritten in between was staged before, so that it is in the answer.
   */
  blockAsOfCut(boundary: EpochNumber, block: number): BlockAsOfCut {
    this.#liveCut(boundary);
    const absent = this.#hydration !== undefined && !this.#hydration.has(block);
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
    return { absent, unsettled: this.#hydration !== undefined, staged };
  }

  /** The block is safe elsewhere (stored, and in the journal): the guest may overwrite it freely. */
  captured(boundary: EpochNumber, block: number): void {
    this.#cuts.find((cut) => cut.boundary === boundary)?.captured(block);
  }

  /**
   * The cut is over. @param completed its snapshot is now the volume's base: older epochs are no longer needed. Else
   * what it owed passes to the next cut, by the epochs that stay.
   */
  finishCut(boundary: EpochNumber, completed: boolean): void {
    this.#cuts = this.#cuts.filter((cut) => cut.boundary !== boundary);
    if (completed) this.forgetBefore(boundary);
    const oldest = this.#cuts[0]?.boundary ?? Number.POSITIVE_INFINITY;
    for (const epoch of this.#epochs) if (epoch.number < oldest) epoch.dropStaging(this.#environment.disk);
  }

  /** Drops the epochs before a base. The catalog has recorded the base already: after a crash the epochs stay, unused. */
  forgetBefore(boundary: EpochNumber): void {
    const retired = this.#epochs.filter((epoch) => epoch.number < boundary && epoch !== this.#current);
    this.#epochs = this.#epochs.filter((epoch) => !retired.includes(epoch));
    for (const cut of this.#cuts) cut.rebase(boundary);
    for (const epoch of retired) epoch.remove(this.#environment.disk);
  }

  /** Fetches what is still only in the snapshot, in the background; resolves when all is local and durable. */
  async hydrate(shouldStop: () => boolean): Promise<void> {
    const hydration = this.#hydration;
    if (hydration === undefined) return;
    const whole = await hydration.fetchAll(this.#raw, shouldStop);
    if (!whole || this.#fault !== undefined) return;
    // The data first: once volume.json says that nothing is absent, the snapshot is never asked again.
    await this.#raw.sync();
    if (shouldStop()) return;
    this.#hydration = undefined;
    this.#save({ hydrating: false });
    hydration.remove();
  }

  /** Syncs everything and marks the volume cleanly closed. */
  async close(): Promise<void> {
    this.release();
    if (this.#fault === undefined) {
      this.#unsynced = true;
      await this.flush();
      await Promise.all(this.#epochs.flatMap((epoch) => [epoch.dirty.sync(), epoch.staging?.sync()]));
      this.#environment.disk.syncDirectory(this.#directory);
      // Last: clean says that dirty bits, staged pages and hydration marks can be trusted whatever the boot.
      this.#save({ clean: true });
    }
    this.#hydration?.close();
    for (const epoch of this.#epochs) epoch.close();
    this.#prepared?.close();
    this.#raw.close();
    this.#lock.close();
  }

  #passesRange(offset: number, length: number): boolean {
    const last = Math.floor((offset + length - 1) / BLOCK_BYTES);
    for (let block = Math.floor(offset / BLOCK_BYTES); block <= last; block += 1) {
      if (!this.#passes.get(block)) return false;
    }
    return true;
  }

  /** A write that may have more to do first: wait at the gate, fetch, save old pages, mark. */
  #change(offset: number, length: number, apply: () => void): void | Promise<void> {
    if (this.#fault !== undefined) throw this.#fault;
    if (this.#gate !== undefined) return this.#gate.opened.then(() => this.#change(offset, length, apply));
    const end = offset + length;
    const first = Math.floor(offset / BLOCK_BYTES);
    const last = Math.floor((end - 1) / BLOCK_BYTES);
    const hydration = this.#hydration;
    if (hydration !== undefined) {
      for (let block = first; block <= last; block += 1) {
        if (hydration.has(block)) continue;
        const whole = offset <= block * BLOCK_BYTES && end >= (block + 1) * BLOCK_BYTES;
        // A block that is overwritten whole need not be fetched, unless a cut wants its old bytes.
        if (whole && !this.#cuts.some((cut) => cut.wants(block))) continue;
        // After the wait everything is looked at anew: the gate may have closed, a cut may have been made.
        return hydration.fetch(this.#raw, asBlock(block)).then(() => this.#change(offset, length, apply));
      }
    }
    for (let block = first; block <= last; block += 1) {
      this.#admit(block, Math.max(offset, block * BLOCK_BYTES), Math.min(end, (block + 1) * BLOCK_BYTES));
    }
    this.#unsynced = true;
    apply();
    // After the data: a block marked as local whose bytes never came would lose the snapshot's bytes.
    if (hydration !== undefined) {
      for (let block = first; block <= last; block += 1) if (!hydration.has(block)) hydration.mark(block);
    }
  }

  /**
   * What must be in the files before bytes [from, to) of a block may change, in the order that a kill at any point
   * forgives: old pages, dirty bit; then the caller writes the data. Staged but not overwritten: the saved page equals
   * the volume's. Marked but not written: one block is compared for nothing.
   */
  #admit(block: number, from: number, to: number): void {
    const cut = this.#newestCutWanting(block);
    if (cut !== undefined) this.#stage(cut, from, to);
    if (!this.#current.dirty.bits.get(block)) this.#current.dirty.set(block);
    if (cut === undefined && (this.#hydration?.has(block) ?? true)) this.#passes.set(block);
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
        if (this.stagedBytes + run * PAGE_BYTES > this.#environment.stagingLimitBytes) {
          this.#loseCuts(
            `more than ${this.#environment.stagingLimitBytes} bytes of the volume were overwritten before they were stored`,
          );
          return;
        }
        this.#current.stagingLog(this.#environment.disk).save(this.#raw, page, run);
      } catch (error) {
        // The guest's write goes on; what gives way is the snapshot.
        this.#loseCuts(`the old bytes of a block could not be saved: ${(error as Error).message}`);
        return;
      }
      page += run;
    }
  }

  #loseCuts(reason: string): void {
    for (const cut of this.#cuts) {
      if (cut.lost !== undefined) continue;
      cut.lost = reason;
      this.#environment.onCutLost(cut.boundary, reason);
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
    // Untrusted history: until a base newer than that exists, every block may have to be compared.
    const everything = this.#state.trustedFrom > 1 && sources[0]?.number === this.#state.trustedFrom;
    return new Cut(boundary, sources, everything, this.#blocks);
  }

  #liveCut(boundary: EpochNumber): Cut {
    const cut = this.#cuts.find((candidate) => candidate.boundary === boundary);
    if (cut === undefined) throw new Error(`the volume has no cut in flight at ${boundary}`);
    if (cut.lost !== undefined) throw new CutLostError(cut.lost);
    return cut;
  }

  #nextWithData(from: number, boundary: EpochNumber): number {
    const data = from < this.#blocks ? this.#raw.nextData(from * BLOCK_BYTES) : undefined;
    const inFile = data === undefined ? -1 : Math.floor(data / BLOCK_BYTES);
    const logs = this.#epochs.filter((epoch) => epoch.number >= boundary).flatMap((epoch) => epoch.staging ?? []);
    const staged = nextSetInAny(
      logs.map((log) => log.blocks),
      from,
    );
    if (inFile === -1) return staged;
    return staged === -1 ? inFile : Math.min(inFile, staged);
  }

  #isHole(offset: number, length: number): boolean {
    if (this.#fault !== undefined) throw this.#fault;
    if (this.#hydration !== undefined && !this.#hydration.hasRange(offset, length)) return false;
    const data = this.#raw.nextData(offset);
    return data === undefined || data >= offset + length;
  }

  #inSteps(
    offset: number,
    length: number,
    step: (offset: number, length: number) => void | Promise<void>,
  ): void | Promise<void> {
    if (length <= STEP_BYTES) return step(offset, length);
    return (async () => {
      for (let done = 0; done < length; ) {
        const at = offset + done;
        const bytes = Math.min(length - done, STEP_BYTES - (at % STEP_BYTES));
        await step(at, bytes);
        done += bytes;
        await new Promise(setImmediate);
      }
    })();
  }

  #sync(): Promise<void> {
    this.#unsynced = false;
    const settled = this.#hydration?.beginSync();
    const syncing = this.#raw
      .sync()
      // The marks after the data: a mark that outlives a power loss must never outlive its bytes.
      .then(() => settled?.())
      .catch((error: Error) => {
        // The kernel reports a failed write-back once and then forgets the pages: a second sync would say yes to
        // bytes that are gone.
        this.#fault = new Error(`the volume failed to sync and is closed to all requests: ${error.message}`);
        throw this.#fault;
      })
      .finally(() => {
        if (this.#syncing === syncing) this.#syncing = undefined;
      });
    this.#syncing = syncing;
    return syncing;
  }

  #save(change: Partial<VolumeState>): void {
    this.#state = { ...this.#state, ...change };
    writeVolumeState(this.#environment.disk, this.#directory, this.#state);
  }
}

/** Another process has the volume's files open. */
export class VolumeLockedError extends Error {
  override name = 'VolumeLockedError';
  constructor(directory: string) {
    super(`${directory} is open in another process: two servers must not share a data directory`);
  }
}

/** The bytes of a cut are gone: its snapshot ends in `error`, with this message. */
export class CutLostError extends Error {
  override name = 'CutLostError';
}

function nextSetInAny(bitmaps: readonly PagedBitmap[], from: number): number {
  let nearest = -1;
  for (const bitmap of bitmaps) {
    const found = bitmap.nextSet(from);
    if (found !== -1 && (nearest === -1 || found < nearest)) nearest = found;
  }
  return nearest;
}

function requireSource(source: BlockSource | undefined, directory: string): BlockSource {
  if (source === undefined) throw new Error(`${directory} still needs blocks from its snapshot, and none was named`);
  return source;
}
