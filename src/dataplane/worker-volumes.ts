import { setTimeout as sleep } from 'node:timers/promises';
import { DataKey } from '../encryption/data-key.ts';
import { type IoCounters, newIoCounters } from '../nbd/io-counters.ts';
import type { Transmission } from '../nbd/transmission.ts';
import type { ObjectReader } from '../objects/object-store.ts';
import type { Patience } from '../objects/patience.ts';
import { SnapshotSource } from '../snapshots/snapshot-source.ts';
import type { VolumeId } from '../types/ids.ts';
import { asEpoch, type EpochNumber } from '../types/units.ts';
import type { BlockSource } from '../volumes/block-source.ts';
import type { Disk } from '../volumes/disk.ts';
import type { KnownCuts, NewVolume } from '../volumes/engine.ts';
import type { LocalEngine } from '../volumes/local-engine.ts';
import type { LocalVolume } from '../volumes/local-volume.ts';
import { VolumeLockedError } from '../volumes/volume-lock.ts';
import { type Fetcher, HydrationSource } from './hydration-source.ts';
import { removeStaleJournals } from './journal-path.ts';
import type { VolumeOpening } from './messages.ts';

/** How long a volume's files may still be held by a worker of a server that was killed a moment ago. */
const LOCK_PATIENCE_MILLISECONDS = 10_000;

/** Why a volume is open: it is closed when no reason is left. */
export type VolumeUse = {
  volume: LocalVolume;
  exported: boolean;
  connections: Set<Transmission>;
  pendingCuts: Set<EpochNumber>;
  /** So many calls are doing something with it. */
  claims: number;
  counters: IoCounters;
};

/** Whether it refuses every request, and nobody holds it: who opens it next is to get it anew. */
function isSpent(use: VolumeUse): boolean {
  return use.volume.fault !== undefined && !use.exported && use.claims === 0 && use.connections.size === 0;
}

/** The volumes that this worker owns, and what each is in use for. */
export class WorkerVolumes {
  readonly #engine: LocalEngine;
  readonly #disk: Disk;
  readonly #store: ObjectReader;
  readonly #patience: Patience;
  readonly #fetcher: () => Fetcher;
  readonly #uses = new Map<VolumeId, VolumeUse>();
  readonly #making = new Map<VolumeId, Promise<void>>();
  readonly #opening = new Map<VolumeId, Promise<void>>();
  readonly #closing = new Map<VolumeId, Promise<void>>();
  readonly #removing = new Set<VolumeId>();

  /** @param fetcher what fetches in the background */
  constructor(engine: LocalEngine, disk: Disk, store: ObjectReader, patience: Patience, fetcher: () => Fetcher) {
    this.#fetcher = fetcher;
    this.#engine = engine;
    this.#disk = disk;
    this.#store = store;
    this.#patience = patience;
  }

  /** Makes a volume's files. */
  async create(volume: NewVolume): Promise<void> {
    const { volumeId } = volume;
    // One that the server does not wait for any more, and has begun anew.
    await this.#making.get(volumeId)?.catch(() => undefined);
    const making = this.#engine.create(volume).finally(() => this.#making.delete(volumeId));
    this.#making.set(volumeId, making);
    await making;
  }

  /** Does something with a volume that is open meanwhile, and closes it where nothing else keeps it open. */
  async use<Answer>(opening: VolumeOpening, work: (use: VolumeUse) => Answer | Promise<Answer>): Promise<Answer> {
    const use = await this.claim(opening);
    try {
      return await work(use);
    } finally {
      use.claims -= 1;
      await this.closeIfIdle(opening.volumeId);
    }
  }

  /**
   * Opens the volume where it is not open, its pending cuts first: from the first write on their bytes are kept. It is
   * open until `release`, at least.
   */
  async claim(opening: VolumeOpening): Promise<VolumeUse> {
    const { volumeId } = opening;
    for (;;) {
      await this.#closing.get(volumeId);
      // While its files go one by one it may still look whole, and would stay open without them.
      if (this.#removing.has(volumeId)) throw new Error(`${volumeId} is being removed`);
      const open = this.#uses.get(volumeId);
      if (open !== undefined && !isSpent(open)) {
        // In the turn that has found it open: in the next one it may be idle, and be closed.
        open.claims += 1;
        return open;
      }
      if (open !== undefined) {
        await this.close(volumeId);
        continue;
      }
      let making = this.#opening.get(volumeId);
      if (making === undefined) {
        making = this.#open(opening).finally(() => this.#opening.delete(volumeId));
        this.#opening.set(volumeId, making);
      }
      await making;
    }
  }

  async release(volumeId: VolumeId): Promise<void> {
    const use = this.#uses.get(volumeId);
    if (use !== undefined) use.claims -= 1;
    await this.closeIfIdle(volumeId);
  }

  get(volumeId: VolumeId): VolumeUse | undefined {
    return this.#uses.get(volumeId);
  }

  all(): IterableIterator<[VolumeId, VolumeUse]> {
    return this.#uses.entries();
  }

  /** Closes the volume if nothing uses it. */
  async closeIfIdle(volumeId: VolumeId): Promise<void> {
    const use = this.#uses.get(volumeId);
    if (use === undefined || use.exported || use.claims > 0) return;
    if (use.connections.size > 0 || use.pendingCuts.size > 0) return;
    await this.close(volumeId);
  }

  async close(volumeId: VolumeId): Promise<void> {
    if (this.#uses.delete(volumeId)) {
      const closing = this.#engine.close(volumeId).finally(() => this.#closing.delete(volumeId));
      this.#closing.set(volumeId, closing);
    }
    await this.#closing.get(volumeId);
  }

  /** Closes all, and waits for those that are being closed already. */
  async closeAll(): Promise<void> {
    await Promise.allSettled([...this.#making.values(), ...this.#opening.values()]);
    await Promise.all([...this.#uses.keys()].map((volumeId) => this.close(volumeId)));
    await Promise.all(this.#closing.values());
  }

  /** Closes the volume and removes its files. */
  async remove(volumeId: VolumeId): Promise<void> {
    this.#removing.add(volumeId);
    try {
      // What is still being made must not come after its removal; one that was being opened is closed with the rest.
      await this.#making.get(volumeId)?.catch(() => undefined);
      await this.#opening.get(volumeId)?.catch(() => undefined);
      await this.close(volumeId);
      await this.#engine.remove(volumeId);
    } finally {
      this.#removing.delete(volumeId);
    }
  }

  async #open(opening: VolumeOpening): Promise<void> {
    const { volumeId, origin, base, pendingCuts } = opening;
    const key = opening.key && new DataKey(opening.key);
    const originKey = opening.originKey && new DataKey(opening.originKey);
    const direct = origin && SnapshotSource.of(this.#store, origin, this.#patience, originKey);
    const source = direct && new HydrationSource(direct, { root: origin, key: opening.originKey }, this.#fetcher);
    const known: KnownCuts = { base, newest: asEpoch(Math.max(base, ...pendingCuts)) };
    // While the guest is on its way: a file system's first reads are at the beginning, and all need the nodes above.
    direct?.manifest.leaf(0).catch(() => undefined);
    const volume = await this.#openUnlocked(volumeId, source, key, known);
    volume.forgetBefore(base);
    removeStaleJournals(this.#disk, this.#engine.directoryOf(volumeId), pendingCuts);
    const use: VolumeUse = {
      volume,
      exported: false,
      connections: new Set(),
      pendingCuts: new Set(),
      claims: 0,
      counters: newIoCounters(),
    };
    for (const boundary of pendingCuts) {
      // One that cannot be had is reported when its capture is asked for.
      if (volume.resumeCut(boundary) === undefined) use.pendingCuts.add(boundary);
    }
    this.#uses.set(volumeId, use);
  }

  async #openUnlocked(
    volumeId: VolumeId,
    source: BlockSource | undefined,
    key: DataKey | undefined,
    known: KnownCuts,
  ): Promise<LocalVolume> {
    const until = performance.now() + LOCK_PATIENCE_MILLISECONDS;
    for (;;) {
      try {
        return await this.#engine.open(volumeId, source, key, known);
      } catch (error) {
        if (!(error instanceof VolumeLockedError) || performance.now() > until) throw error;
        await sleep(20);
      }
    }
  }
}
