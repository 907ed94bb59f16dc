import assert from 'node:assert/strict';
import { DataKey } from '../../src/encryption/data-key.ts';
import { UploadGate } from '../../src/lifecycle/upload-gate.ts';
import { FinalError } from '../../src/objects/object-store.ts';
import type { Patience } from '../../src/objects/patience.ts';
import { ENCODING } from '../../src/snapshots/block-encoding.ts';
import { capture } from '../../src/snapshots/capture.ts';
import { type Garbage, Marking, removeGarbage } from '../../src/snapshots/collection.ts';
import { Manifest } from '../../src/snapshots/manifest.ts';
import { SnapshotSource } from '../../src/snapshots/snapshot-source.ts';
import { FileJournal } from '../../src/snapshots/upload-journal.ts';
import {
  asBlock,
  asEpoch,
  BLOCK_BYTES,
  type EpochNumber,
  NO_BASE,
  PAGE_BYTES,
  type Sha256,
} from '../../src/types/units.ts';
import { CutLostError } from '../../src/volumes/cut.ts';
import { CutFiles } from '../../src/volumes/cut-files.ts';
import { LocalVolume } from '../../src/volumes/local-volume.ts';
import { createVolume } from '../../src/volumes/new-volume.ts';
import { KilledError } from '../support/crash-disk.ts';
import { seededRandom } from '../support/random.ts';
import { Scheduler } from './scheduler.ts';
import { type DiskLies, SimDisk } from './sim-disk.ts';
import { SimStore } from './sim-store.ts';

const BLOCKS = 3;
const SIZE = BLOCKS * BLOCK_BYTES;
const SECTOR = 512;
const DIRECTORY = '/volumes/vol';

/** What can be planted, for the simulation to find. */
export type Planted = DiskLies & {
  packsLate?: boolean;
  collectWithoutPending?: boolean;
  collectDespiteJournals?: boolean;
  collectWithoutSecondLook?: boolean;
  forgetPages?: boolean;
  unconfirmed?: boolean;
};

type Snapshot = { root: Sha256; image: Buffer };
/** `begun`: something of it may be in the store that only its journal names. */
type PendingCut = { boundary: EpochNumber; image: Buffer; begun: boolean };

/** What the catalog would say: it survives everything. */
type Catalog = {
  volume: { created: boolean; restoredFrom: Snapshot | undefined; hydrated: boolean };
  base: { boundary: EpochNumber; root: Sha256 | undefined };
  pending: PendingCut[];
  snapshots: Snapshot[];
};

/**
 * One volume with its uploads, restores and collections, on a disk and a store that do their worst, beside a plain
 * array of bytes that says what a guest must find. One seed is one run.
 */
export class World {
  readonly #scheduler: Scheduler;
  readonly #disk: SimDisk;
  readonly #store: SimStore;
  readonly #planted: Planted;
  readonly #stagingLimitBytes: number;
  readonly #key: DataKey | undefined;
  readonly #catalog: Catalog = {
    volume: { created: false, restoredFrom: undefined, hydrated: true },
    base: { boundary: asEpoch(1), root: undefined },
    pending: [],
    snapshots: [],
  };
  #model: Buffer = Buffer.alloc(SIZE);
  /** By sector: what it may be after a power loss, oldest first; the last is what it is. Only those not yet flushed. */
  #unflushed = new Map<number, { number: number; bytes: Buffer }[]>();
  #writeNumber = 0;
  /** A write that was under way when the process died. */
  #interrupted: { offset: number; bytes: Buffer } | undefined;
  /** Cuts that the volume has given up. */
  readonly #given = new Set<EpochNumber>();
  /** Since the volume was opened: the next opening may find older bytes. */
  #marksRefused = false;
  #historyRefused = false;
  #bootNumber = 1;
  #volume: LocalVolume | undefined;
  #gate = new UploadGate();
  #collecting = false;
  #tasks = new Set<Promise<void>>();
  #stopping = new AbortController();
  #uploading = false;
  #cutting = false;
  #failure: unknown;
  figures = {
    writes: 0,
    cuts: 0,
    completed: 0,
    kills: 0,
    powerLosses: 0,
    refusedSyncs: 0,
    stops: 0,
    refusedData: 0,
    refusedHistory: 0,
    restores: 0,
    collections: 0,
    lostCuts: 0,
    forgottenBases: 0,
  };

  constructor(seed: number, planted: Planted = {}) {
    const random = seededRandom(seed);
    this.#scheduler = new Scheduler(random);
    this.#planted = planted;
    this.#disk = new SimDisk(this.#scheduler, planted);
    this.#stagingLimitBytes = random() < 0.3 ? 16 * PAGE_BYTES : 1 << 30;
    const failing = random() < 0.5 ? 0.15 : 0;
    const lying = random() < 0.3 ? 0.03 : 0;
    this.#store = new SimStore(this.#scheduler, { failing, lying, packsLate: planted.packsLate === true });
    // Keys are drawn from the seed too: one seed, one run.
    const keyBytes = Buffer.from(Array.from({ length: 32 }, () => Math.floor(random() * 256)));
    this.#key = random() < 0.5 ? new DataKey(keyBytes) : undefined;
  }

  async run(steps: number): Promise<void> {
    await this.#start(false);
    for (let step = 0; step < steps; step += 1) {
      const { random } = this.#scheduler;
      if (random() < 0.02) this.#disk.killAfter(Math.floor(random() * 8));
      try {
        if (this.#scheduler.pending > 0 && random() < 0.6) await this.#scheduler.step();
        else await this.#act();
      } catch (error) {
        if (!wasKilled(error)) throw error;
        await this.#crash();
      }
      if (wasKilled(this.#failure)) await this.#crash();
      else if (this.#failure !== undefined) throw this.#failure;
    }
    await this.#settle();
  }

  // Everything below is one thing that can happen.

  async #act(): Promise<void> {
    const { random } = this.#scheduler;
    const chance = random();
    if (chance < 0.42) this.#background(this.#write());
    else if (chance < 0.49) this.#background(this.#zero());
    else if (chance < 0.56) this.#background(this.#flush());
    else if (chance < 0.65) this.#background(this.#cut());
    else if (chance < 0.75) this.#upload();
    else if (chance < 0.8) this.#background(this.#checkNow());
    else if (chance < 0.83) this.#deleteSnapshot();
    else if (chance < 0.86) this.#background(this.#collectIfReadable());
    else if (chance < 0.91) await this.#restore();
    else if (chance < 0.95) this.#hydrate();
    else if (chance < 0.965) await this.#verify();
    else if (chance < 0.975) await this.#refuseSync();
    else if (chance < 0.98) this.#refuseHistory();
    else if (chance < 0.985) await this.#refuseData();
    else if (chance < 0.988) await this.#stop();
    else if (chance < 0.992) this.#background(this.#forgetBase());
    else await this.#crash();
    await new Promise(setImmediate);
  }

  #range(most: number): { offset: number; length: number } {
    const { random } = this.#scheduler;
    let offset = Math.floor(random() * SIZE);
    let length = 1 + Math.floor(random() * most);
    if (random() < 0.6) {
      offset -= offset % PAGE_BYTES;
      length = Math.ceil(length / PAGE_BYTES) * PAGE_BYTES;
    }
    return { offset, length: Math.min(length, SIZE - offset) };
  }

  #bytes(length: number): Buffer {
    const { random } = this.#scheduler;
    const piece = Buffer.from(Array.from({ length: 64 }, () => Math.floor(random() * 256)));
    return Buffer.alloc(length, piece);
  }

  async #write(): Promise<void> {
    const { offset, length } = this.#range(this.#scheduler.random() < 0.2 ? BLOCK_BYTES + 5000 : 9000);
    // Half of the writes are told of beforehand, together with one that never comes.
    const other = this.#scheduler.random() < 0.5 ? this.#range(20_000) : undefined;
    await this.#change(offset, this.#bytes(length), (volume, bytes) => {
      if (other !== undefined) volume.saveAhead([offset, length, other.offset, other.length]);
      return volume.write([bytes], bytes.length, offset);
    });
  }

  async #zero(): Promise<void> {
    const { offset, length } = this.#range(BLOCK_BYTES);
    const keep = this.#scheduler.random() < 0.5;
    await this.#change(offset, Buffer.alloc(length), (volume) => volume.zero(offset, length, keep));
  }

  /** A write whose model changes in the moment in which the volume does: it may have to wait before that. */
  async #change(
    offset: number,
    bytes: Buffer,
    apply: (volume: LocalVolume, bytes: Buffer) => void | Promise<void>,
  ): Promise<void> {
    const volume = this.#volume;
    // One at a time: where two writes overlap, whichever comes last may win, and the model would not know which.
    if (volume === undefined || this.#interrupted !== undefined) return;
    this.#interrupted = { offset, bytes };
    try {
      await apply(volume, bytes);
    } catch (error) {
      if (wasKilled(error)) throw error;
      // The client was told: its bytes may be there or not.
      if (!(error instanceof FinalError) && !/503|500|aborted|too short/.test((error as Error).message)) throw error;
      await this.#resolveInterrupted();
      return;
    }
    this.figures.writes += 1;
    this.#interrupted = undefined;
    this.#remember(offset, bytes);
  }

  #remember(offset: number, bytes: Buffer): void {
    this.#writeNumber += 1;
    const first = Math.floor(offset / SECTOR);
    const last = Math.floor((offset + bytes.length - 1) / SECTOR);
    for (let sector = first; sector <= last; sector += 1) {
      if (!this.#unflushed.has(sector))
        this.#unflushed.set(sector, [{ number: 0, bytes: this.#sector(this.#model, sector) }]);
    }
    bytes.copy(this.#model, offset);
    for (let sector = first; sector <= last; sector += 1) {
      this.#unflushed.get(sector)?.push({ number: this.#writeNumber, bytes: this.#sector(this.#model, sector) });
    }
  }

  #sector(bytes: Buffer, sector: number): Buffer {
    return Buffer.from(bytes.subarray(sector * SECTOR, (sector + 1) * SECTOR));
  }

  async #flush(): Promise<void> {
    const upTo = this.#writeNumber;
    await this.#volume?.flush();
    for (const [sector, values] of this.#unflushed) {
      let newest = 0;
      for (const [index, value] of values.entries()) if (value.number <= upTo) newest = index;
      const left = values.slice(newest);
      if (left.length === 1) this.#unflushed.delete(sector);
      else this.#unflushed.set(sector, left);
    }
  }

  async #cut(): Promise<void> {
    const volume = this.#volume;
    await this.#alone(async () => volume?.prepareCut().then(() => this.#cutNow(volume)));
  }

  /** Of cuts, and of what begins an epoch besides, there is one at a time. */
  async #alone(work: () => Promise<void>): Promise<void> {
    const volume = this.#volume;
    if (this.#cutting) return;
    this.#cutting = true;
    await work().finally(() => {
      if (volume === this.#volume) this.#cutting = false;
    });
  }

  #cutNow(volume: LocalVolume): void {
    if (volume !== this.#volume) return;
    // The product holds writes back for this; a write that waits for a fetch is one that has not been acknowledged.
    if (this.#catalog.pending.length >= 3 || this.#interrupted !== undefined) return;
    volume.hold();
    const boundary = volume.cut();
    volume.release();
    this.#catalog.pending.push({ boundary, image: Buffer.from(this.#model), begun: false });
    this.figures.cuts += 1;
  }

  #upload(): void {
    if (this.#uploading || this.#catalog.pending.length === 0) return;
    this.#uploading = true;
    this.#background(
      this.#gate
        .upload('snapshot', () => this.#uploadOldest())
        .finally(() => {
          this.#uploading = false;
        }),
    );
  }

  async #uploadOldest(): Promise<void> {
    const volume = this.#volume;
    const [cut] = this.#catalog.pending;
    if (volume === undefined || cut === undefined) return;
    cut.begun = true;
    const { boundary } = cut;
    const path = `${DIRECTORY}/cut-${boundary}.upload`;
    const journal = new FileJournal(this.#disk.open(path, this.#disk.exists(path) ? 'read-write' : 'create'));
    const files = new CutFiles(this.#disk, DIRECTORY, SIZE, this.#key, volume.hydrating);
    const { base } = this.#catalog;
    try {
      const { root } = await capture({
        cut: {
          changed: async (from) => volume.changedBlocks(boundary, base.boundary, from, 100),
          written: async (blocks) => {
            await this.#scheduler.turn();
            const masks = blocks.map((block) => volume.writtenPages(boundary, base.boundary, block));
            return this.#planted.forgetPages ? masks.map((mask) => mask.with(0, mask[0] & 0xfe)) : masks;
          },
          read: (pieces, target) =>
            files.read(pieces, target, async (asked) => {
              // A thread of low priority, on a busy machine: much may happen before it is answered.
              for (let turns = Math.floor(this.#scheduler.random() * 6); turns >= 0; turns -= 1) {
                await this.#scheduler.turn();
              }
              return asked.map((block) => volume.blockAsOfCut(boundary, block));
            }),
          captured: (blocks) => {
            for (const block of blocks) volume.captured(boundary, block);
          },
        },
        blocks: BLOCKS,
        store: this.#store,
        base: new Manifest(this.#store, base.root, this.#patience(true), this.#key),
        journal,
        patience: this.#patience(true),
        onProgress: () => undefined,
        absentFrom: base.root === undefined ? this.#origin() : undefined,
        signal: this.#stopping.signal,
        encode: async (block) => ({ encoding: ENCODING.PLAIN, stored: block }),
      });
      if (this.#planted.unconfirmed !== true) await volume.confirmCut(boundary);
      this.#catalog.pending.shift();
      this.#catalog.snapshots.push({ root, image: cut.image });
      // Given up meanwhile, it stays so.
      const isBase = this.#catalog.base === base;
      if (isBase) this.#catalog.base = { boundary, root };
      this.figures.completed += 1;
      volume.finishCut(boundary, isBase);
    } catch (error) {
      // Its journal stays, for the next process.
      if (this.#stopping.signal.aborted && !wasKilled(error)) return;
      if (!(error instanceof CutLostError)) throw error;
      this.#catalog.pending.shift();
      this.figures.lostCuts += 1;
      volume.finishCut(boundary, false);
    }
    this.#disk.remove(path);
  }

  /** What is stored is not to be relied on any more: the catalog says so first, then the volume is told. */
  async #forgetBase(): Promise<void> {
    const volume = this.#volume;
    if (volume === undefined) return;
    await this.#alone(async () => {
      this.#catalog.base = { boundary: NO_BASE, root: undefined };
      await volume.forgetHistory('no base');
      this.figures.forgottenBases += 1;
    });
  }

  #deleteSnapshot(): void {
    const { snapshots } = this.#catalog;
    if (snapshots.length > 1) snapshots.splice(Math.floor(this.#scheduler.random() * snapshots.length), 1);
  }

  async #collectIfReadable(): Promise<void> {
    // One at a time.
    if (this.#collecting) return;
    this.#collecting = true;
    try {
      await this.#collect();
    } catch (error) {
      if (!/503|500|aborted|damaged/.test((error as Error).message)) throw error;
    } finally {
      this.#collecting = false;
    }
  }

  async #collect(): Promise<void> {
    const planted = this.#planted.collectWithoutPending === true;
    const marking = new Marking(this.#store);
    // Beside uploads, cuts and deletions; what has come of them is looked at when none is under way.
    await marking.add(this.#live(planted));
    const candidates = await marking.listUnneeded();
    const collect = async (): Promise<void> => {
      // As the product does: not while a pending snapshot's bytes are only in its journal.
      const begun = this.#planted.collectDespiteJournals !== true && this.#catalog.pending.some((cut) => cut.begun);
      if (begun && !planted) return;
      if (this.#planted.collectWithoutSecondLook !== true) await marking.add(this.#live(planted));
      await removeGarbage(this.#store, marking.stillUnneeded(candidates));
      this.figures.collections += 1;
    };
    await (planted ? collect() : this.#gate.collect(collect));
  }

  #live(planted: boolean): { roots: Sha256[]; packs: []; snapshotIds: [] } {
    const { snapshots, base, volume } = this.#catalog;
    const roots = new Set(snapshots.map((snapshot) => snapshot.root));
    if (base.root !== undefined && !planted) roots.add(base.root);
    if (volume.restoredFrom !== undefined && !volume.hydrated) roots.add(volume.restoredFrom.root);
    return { roots: [...roots], packs: [], snapshotIds: [] };
  }

  /** Another volume takes this one's place, made of one of its snapshots. */
  async #restore(): Promise<void> {
    const { snapshots, pending, volume } = this.#catalog;
    if (this.#volume === undefined || pending.length > 0 || this.#tasks.size > 0 || snapshots.length === 0) return;
    const source = snapshots[Math.floor(this.#scheduler.random() * snapshots.length)];
    await this.#soon(this.#volume.close()).catch((error: Error) => {
      // The device has refused its dirty bits.
      if (!/failed to sync/.test(error.message)) throw error;
    });
    this.#volume = undefined;
    this.#given.clear();
    volume.created = false;
    volume.restoredFrom = source;
    volume.hydrated = false;
    // As under another key: then nothing of what is stored can be part of its own snapshots.
    const baseless = this.#scheduler.random() < 0.5;
    this.#catalog.base = { boundary: asEpoch(1), root: baseless ? undefined : source.root };
    this.#model = Buffer.from(source.image);
    this.#unflushed.clear();
    this.figures.restores += 1;
    await this.#start(false);
  }

  /** Where the blocks are that a restored volume lacks. */
  #origin(): SnapshotSource | undefined {
    const { restoredFrom, hydrated } = this.#catalog.volume;
    if (restoredFrom === undefined || hydrated) return undefined;
    return SnapshotSource.of(this.#store, restoredFrom.root, this.#patience(), this.#key);
  }

  #hydrate(): void {
    const volume = this.#volume;
    if (volume === undefined || !volume.hydrating) return;
    const hydrating = volume
      .hydrate(() => this.#volume !== volume)
      .then(() => {
        if (!volume.hydrating) this.#catalog.volume.hydrated = true;
      });
    this.#background(
      hydrating.catch((error: Error) => {
        // Its own sync may be the one that is refused.
        if (wasKilled(error) || !(error instanceof FinalError || /failed to sync/.test(error.message))) throw error;
      }),
    );
  }

  /** The process ends as it should, in the midst of an upload perhaps; all that there is must survive the power, too. */
  async #stop(): Promise<void> {
    const volume = this.#volume;
    if (volume === undefined || this.#interrupted !== undefined) return;
    this.#stopping.abort(new Error('the process stops'));
    await this.#soon(Promise.all(this.#tasks));
    if (this.#failure !== undefined) return;
    // Of a refusal the kernel tells once: killed before it has left a note of it, the process leaves no one who knows.
    if (this.#historyRefused) this.#disk.killAfter(Number.POSITIVE_INFINITY);
    await this.#soon(volume.close()).catch((error: Error) => {
      // The device has refused its dirty bits.
      if (!/failed to sync/.test(error.message)) throw error;
    });
    this.figures.stops += 1;
    await this.#beginAnew(this.#scheduler.random() < 0.5, false);
  }

  async #crash(): Promise<void> {
    const powerLost = this.#scheduler.random() < 0.5;
    if (powerLost) this.figures.powerLosses += 1;
    else this.figures.kills += 1;
    await this.#beginAnew(powerLost, powerLost || this.#marksRefused, powerLost);
  }

  /** The disk refuses a sync, and forgets what it was of: nothing more is answered for until the volume is opened anew. */
  async #refuseSync(): Promise<void> {
    const volume = this.#volume;
    if (volume === undefined) return;
    // A kill in the moment between the kernel's answer and the note of it would leave nobody who knows.
    this.#disk.killAfter(Number.POSITIVE_INFINITY);
    this.#disk.refuseSync = /data\.00$/;
    const refused = await this.#soon(volume.flush()).then(
      () => false,
      (error: Error) => {
        if (!/failed to sync/.test(error.message)) throw error;
        return true;
      },
    );
    this.#disk.refuseSync = undefined;
    // There was nothing to sync, for a hydration neither.
    if (!refused && volume.fault === undefined) return;
    this.figures.refusedSyncs += 1;
    await assert.rejects(async () => volume.write([Buffer.alloc(1)], 1, 0), /is closed to all requests/);
    // Detached and attached, or the worker is killed.
    if (this.#scheduler.random() < 0.5) await this.#soon(volume.close());
    await this.#beginAnew(false, true);
  }

  /** The disk loses what it was to write back of all but the volume's own bytes. */
  #refuseHistory(): void {
    const { random } = this.#scheduler;
    const kinds = [/\.staging$/, /\.dirty$/, /\.upload$/, /\/hydrated$/];
    const kind = Math.floor(random() * kinds.length);
    const refused = this.#disk.refuseWriteBack(kinds[kind]);
    if (refused) {
      this.figures.refusedHistory += 1;
      this.#historyRefused = true;
    }
    // By the marks alone it can be told whose a block's bytes are.
    if (refused && kind === 3) this.#marksRefused = true;
  }

  /** The disk loses what it was to write back, and nobody has asked for a sync: whoever asks next must be told. */
  async #refuseData(): Promise<void> {
    const volume = this.#volume;
    // A read that is under way would find that bytes are gone before anyone can know.
    if (volume === undefined || this.#tasks.size > 0 || this.#interrupted !== undefined) return;
    this.#disk.refuseWriteBack(/data\.00$/);
    this.figures.refusedData += 1;
    this.#disk.killAfter(Number.POSITIVE_INFINITY);
    const { random } = this.#scheduler;
    if (random() < 0.3) await this.#soon(volume.flush()).catch(() => undefined);
    else if (random() < 0.5) await this.#soon(this.#gate.upload('snapshot', () => this.#uploadOldest()));
    if (volume.fault !== undefined && random() < 0.5) await this.#soon(volume.close());
    await this.#beginAnew(false, true);
  }

  /**
   * @param bytesLost what was not flushed may be gone
   * @param settled what is there now is what the device has; else it may still be lost, with the power or by a refusal
   */
  async #beginAnew(powerLost: boolean, bytesLost: boolean, settled = bytesLost): Promise<void> {
    this.#volume = undefined;
    this.#marksRefused = false;
    this.#historyRefused = false;
    this.#stopping = new AbortController();
    this.#failure = undefined;
    this.#uploading = false;
    this.#cutting = false;
    this.#tasks = new Set();
    this.#gate = new UploadGate();
    this.#collecting = false;
    this.#scheduler.forget();
    this.#store.restart();
    this.#disk.restart(powerLost);
    if (powerLost) this.#bootNumber += 1;
    await this.#start(bytesLost);
    await this.#soon(this.#readBack(bytesLost, settled));
  }

  async #start(bytesLost: boolean): Promise<void> {
    const { volume, base } = this.#catalog;
    const environment = {
      disk: this.#disk,
      bootId: `boot ${this.#bootNumber}`,
      stagingLimitBytes: this.#stagingLimitBytes,
      onCutLost: (boundary: EpochNumber) => this.#given.add(boundary),
      onFault: () => undefined,
      isSuspect: false,
    };
    if (!volume.created) {
      const making = createVolume(this.#disk, DIRECTORY, {
        volumeId: 'vol',
        sizeBytes: SIZE,
        restored: volume.restoredFrom !== undefined,
        baseless: volume.restoredFrom !== undefined && base.root === undefined,
        key: this.#key,
        bootId: environment.bootId,
      });
      await this.#soon(making);
      volume.created = true;
    }
    const opening = LocalVolume.open(DIRECTORY, environment, this.#origin(), this.#key, {
      base: base.boundary,
      newest: asEpoch(Math.max(base.boundary, ...this.#catalog.pending.map((cut) => cut.boundary))),
    });
    const opened = await this.#soon(opening);
    opened.forgetBefore(base.boundary);
    for (const cut of [...this.#catalog.pending]) {
      const lost = opened.resumeCut(cut.boundary);
      if (lost === undefined) continue;
      assert.ok(bytesLost || /lost power/.test(lost) || this.#given.has(cut.boundary), `a kill lost a cut: ${lost}`);
      this.#catalog.pending.splice(this.#catalog.pending.indexOf(cut), 1);
      this.figures.lostCuts += 1;
    }
    this.#volume = opened;
  }

  /** What was acknowledged is there; what was not flushed when the power went, or a sync was refused, may be older. */
  async #readBack(bytesLost: boolean, settled: boolean): Promise<void> {
    const now = await this.#readAll();
    const interrupted = this.#interrupted;
    this.#interrupted = undefined;
    const changed = new Set<number>();
    const differs = !now.equals(this.#model);
    for (let sector = 0; differs && sector < SIZE / SECTOR; sector += 1) {
      const found = now.subarray(sector * SECTOR, (sector + 1) * SECTOR);
      const expected = this.#model.subarray(sector * SECTOR, (sector + 1) * SECTOR);
      if (found.equals(expected)) continue;
      // What it was before the write that was interrupted may still be what is durable.
      if (!this.#unflushed.has(sector)) this.#unflushed.set(sector, [{ number: 0, bytes: Buffer.from(expected) }]);
      changed.add(sector);
      const before = bytesLost ? (this.#unflushed.get(sector) ?? []) : [];
      const legal = [...before.map((value) => value.bytes), expected];
      const asInterrupted = legal.some((value) => equalsWith(found, value, sector * SECTOR, interrupted));
      assert.ok(
        legal.some((value) => found.equals(value)) || asInterrupted,
        `sector ${sector} is none of the ${legal.length} things that it may be after a ${bytesLost ? 'power loss' : 'kill'}`,
      );
    }
    this.#model = now;
    if (settled) {
      this.#unflushed.clear();
      return;
    }
    // After a kill what was not flushed may still be lost with the power; what the interrupted write left, too.
    this.#writeNumber += 1;
    for (const sector of changed) {
      this.#unflushed.get(sector)?.push({ number: this.#writeNumber, bytes: this.#sector(now, sector) });
    }
    if (interrupted !== undefined) this.#rememberInterrupted(interrupted);
  }

  #rememberInterrupted({ offset, bytes }: { offset: number; bytes: Buffer }): void {
    const before = Buffer.from(this.#model);
    this.#remember(offset, this.#model.subarray(offset, offset + bytes.length));
    assert.ok(before.equals(this.#model));
    // Any mixture of old and new may be durable: each sector as the write would have made it, too.
    for (const [sector, values] of this.#unflushed) {
      const start = Math.max(offset, sector * SECTOR);
      const end = Math.min(offset + bytes.length, (sector + 1) * SECTOR);
      if (start >= end) continue;
      for (const value of [...values]) {
        const mixed = Buffer.from(value.bytes);
        bytes.copy(mixed, start - sector * SECTOR, start - offset, end - offset);
        values.splice(values.length - 1, 0, { number: value.number, bytes: mixed });
      }
    }
  }

  async #resolveInterrupted(): Promise<void> {
    const interrupted = this.#interrupted;
    this.#interrupted = undefined;
    if (interrupted === undefined || this.#volume === undefined) return;
    const now = await this.#readAll().catch(() => undefined);
    if (now !== undefined)
      this.#remember(
        interrupted.offset,
        now.subarray(interrupted.offset, interrupted.offset + interrupted.bytes.length),
      );
  }

  async #checkNow(): Promise<void> {
    if (this.#interrupted !== undefined || this.#volume === undefined) return;
    const number = this.#writeNumber;
    const now = await this.#readAll().catch((error: Error) => {
      // An I/O error is an answer; wrong bytes are none.
      if (wasKilled(error) || !(error instanceof FinalError || /503|500|aborted/.test(error.message))) throw error;
      return undefined;
    });
    if (now === undefined || number !== this.#writeNumber || this.#interrupted !== undefined) return;
    assert.ok(now.equals(this.#model), 'a read gave other bytes than were written');
  }

  async #readAll(): Promise<Buffer> {
    const now = Buffer.alloc(SIZE);
    for (let block = 0; block < BLOCKS; block += 1) {
      await this.#volume?.read(now, block * BLOCK_BYTES, BLOCK_BYTES, block * BLOCK_BYTES);
    }
    return now;
  }

  /** Every snapshot is just what the volume was at its cut. */
  async #verify(): Promise<void> {
    for (const [index, { root, image }] of this.#catalog.snapshots.entries()) {
      const found = Buffer.alloc(SIZE);
      const source = SnapshotSource.of(this.#store, root, this.#patience(), this.#key);
      const reading = (async () => {
        for (let block = 0; block < BLOCKS; block += 1) {
          found.set((await source.read(asBlock(block))) ?? Buffer.alloc(BLOCK_BYTES), block * BLOCK_BYTES);
        }
      })();
      const failed = await this.#soon(reading.then(() => undefined)).catch((error: Error) => error);
      // A store that lies three times running is told apart from one that lost something.
      if (
        failed instanceof FinalError &&
        /SHA-256|hash|sealed|is not what|claims|inflate|decompress/.test(failed.message)
      )
        continue;
      if (failed !== undefined) throw failed;
      assert.ok(found.equals(image), `snapshot ${index} is not what the volume was at its cut`);
    }
  }

  /** In the end everything comes to rest: uploads complete, reads agree, and nothing is left that no one needs. */
  async #settle(): Promise<void> {
    this.#disk.killAfter(Number.POSITIVE_INFINITY);
    if (this.#failure !== undefined) throw this.#failure;
    await this.#rest();
    while (this.#catalog.pending.length > 0) {
      this.#upload();
      await this.#rest();
    }
    await this.#soon(this.#checkNow());
    await this.#verify();
    if (this.#planted.collectWithoutPending === true) return;
    this.#store.calm();
    await this.#soon(this.#collectIfReadable());
    const { objects } = await this.#soon(this.#garbage());
    assert.deepEqual(objects, [], 'a collection left something that no one needs');
    await this.#verify();
  }

  async #garbage(): Promise<Garbage> {
    const marking = new Marking(this.#store);
    await marking.add(this.#live(false));
    return marking.listUnneeded();
  }

  async #rest(): Promise<void> {
    while (this.#tasks.size > 0 || this.#scheduler.pending > 0) {
      if (this.#scheduler.pending > 0) await this.#scheduler.step();
      else await new Promise(setImmediate);
      if (this.#failure !== undefined) throw this.#failure;
    }
  }

  /** Lets things happen until this is done. */
  async #soon<Answer>(work: Promise<Answer>): Promise<Answer> {
    let done = false;
    const watched = work.finally(() => {
      done = true;
    });
    watched.catch(() => undefined);
    while (!done) {
      if (this.#scheduler.pending > 0) await this.#scheduler.step();
      else await new Promise(setImmediate);
    }
    return watched;
  }

  #background(work: Promise<void>): void {
    const tasks = this.#tasks;
    const watched = work
      .catch((error: unknown) => {
        // A task of a process that is gone has nothing more to say.
        if (tasks === this.#tasks) this.#failure ??= error;
      })
      .finally(() => tasks.delete(watched));
    tasks.add(watched);
  }

  /** @param ofUpload gives up when the process stops */
  #patience(ofUpload = false): Patience {
    return {
      milliseconds: 10_000_000,
      now: () => this.#scheduler.now,
      sleep: async (milliseconds) => {
        await this.#scheduler.turn(milliseconds);
        if (ofUpload) this.#stopping.signal.throwIfAborted();
      },
      random: this.#scheduler.random,
    };
  }
}

/** Whether it is the kill that is behind an error: what waited for the dead process says so in its own words. */
function wasKilled(error: unknown): boolean {
  return error instanceof KilledError || (error instanceof Error && error.message.endsWith('the process was killed'));
}

/** Whether a sector is a value with some of the bytes of an interrupted write over it. */
function equalsWith(
  found: Buffer,
  value: Buffer,
  position: number,
  interrupted: { offset: number; bytes: Buffer } | undefined,
): boolean {
  if (interrupted === undefined) return false;
  for (let at = 0; at < found.length; at += 1) {
    const within = position + at - interrupted.offset;
    const isNew = within >= 0 && within < interrupted.bytes.length && found[at] === interrupted.bytes[within];
    if (found[at] !== value[at] && !isNew) return false;
  }
  return true;
}
