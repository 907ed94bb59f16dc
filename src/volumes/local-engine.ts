import type { DataKey } from '../encryption/data-key.ts';
import type { VolumeId } from '../types/ids.ts';
import type { PageMask } from '../types/page-mask.ts';
import type { EpochNumber } from '../types/units.ts';
import type { BlockSource } from './block-source.ts';
import type { BlockAsOfCut, ChangedBlocks } from './copy-before-write.ts';
import type { Disk } from './disk.ts';
import type { CutVolume, KnownCuts, NewVolume, VolumeEngine } from './engine.ts';
import { LocalVolume } from './local-volume.ts';
import { createVolume } from './new-volume.ts';

export type LocalEngineOptions = {
  disk: Disk;
  /** Holds one directory for each volume. */
  directory: string;
  bootId: string;
  stagingLimitBytes: number;
  onCutLost: (cut: CutVolume, reason: string) => void;
  /** The disk has refused a sync: the volume refuses every request until it is opened anew. */
  onFault: (volumeId: VolumeId, reason: string) => void;
  /** Runs `expire` after so many milliseconds; returns a way to call that off. */
  startTimer: (milliseconds: number, expire: () => void) => () => void;
};

type Hold = { volumes: readonly VolumeId[]; cancelTimer: () => void };

/** Volumes in files on this machine. One instance (one data-plane worker) owns each volume that it has open. */
export class LocalEngine implements VolumeEngine {
  readonly #options: LocalEngineOptions;
  readonly #open = new Map<VolumeId, LocalVolume>();
  readonly #closing = new Set<VolumeId>();
  readonly #holds = new Map<string, Hold>();
  /** Those of which the disk has refused a sync, until they have been opened again. */
  readonly #suspects = new Set<VolumeId>();

  constructor(options: LocalEngineOptions) {
    this.#options = options;
  }

  create(volume: NewVolume): Promise<void> {
    return createVolume(this.#options.disk, this.directoryOf(volume.volumeId), {
      ...volume,
      bootId: this.#options.bootId,
    });
  }

  async open(
    volumeId: VolumeId,
    origin: BlockSource | undefined,
    key: DataKey | undefined,
    known: KnownCuts,
  ): Promise<LocalVolume> {
    const open = this.#open.get(volumeId);
    if (open !== undefined) return open;
    const volume = await LocalVolume.open(
      this.directoryOf(volumeId),
      {
        disk: this.#options.disk,
        bootId: this.#options.bootId,
        stagingLimitBytes: this.#options.stagingLimitBytes,
        onCutLost: (boundary, reason) => this.#options.onCutLost({ volumeId, boundary }, reason),
        isSuspect: this.#suspects.has(volumeId),
        onFault: (reason) => {
          this.#suspects.add(volumeId);
          this.#options.onFault(volumeId, reason);
        },
      },
      origin,
      key,
      known,
    );
    this.#suspects.delete(volumeId);
    this.#open.set(volumeId, volume);
    return volume;
  }

  async remove(volumeId: VolumeId): Promise<void> {
    await this.close(volumeId);
    await this.#options.disk.removeLargeTree(this.directoryOf(volumeId));
  }

  async close(volumeId: VolumeId): Promise<void> {
    const volume = this.#open.get(volumeId);
    if (volume === undefined) return;
    this.#closing.add(volumeId);
    try {
      this.#open.delete(volumeId);
      await volume.close();
    } finally {
      this.#closing.delete(volumeId);
    }
  }

  async closeAll(): Promise<void> {
    await Promise.all([...this.#open.keys()].map((volumeId) => this.close(volumeId)));
  }

  async hydrate(volumeId: VolumeId): Promise<void> {
    const volume = this.#volume(volumeId);
    await volume.hydrate(() => this.#open.get(volumeId) !== volume || this.#closing.has(volumeId));
  }

  async grow(volumeId: VolumeId, sizeBytes: number): Promise<void> {
    await this.#volume(volumeId).grow(sizeBytes);
  }

  async forgetHistory(volumeId: VolumeId, reason: string): Promise<void> {
    await this.#volume(volumeId).forgetHistory(reason);
  }

  async prepareCut(volumes: readonly VolumeId[]): Promise<void> {
    await Promise.all(volumes.map((volumeId) => this.#volume(volumeId).prepareCut()));
  }

  async hold(token: string, volumes: readonly VolumeId[], deadlineMilliseconds: number): Promise<void> {
    const held: LocalVolume[] = [];
    try {
      for (const volumeId of volumes) {
        const volume = this.#volume(volumeId);
        volume.hold();
        held.push(volume);
      }
    } catch (error) {
      for (const volume of held) volume.release();
      throw error;
    }
    const cancelTimer = this.#options.startTimer(deadlineMilliseconds, () => this.release(token));
    this.#holds.set(token, { volumes, cancelTimer });
  }

  cut(token: string): CutVolume[] {
    const hold = this.#holds.get(token);
    if (hold === undefined) throw new Error('the hold has passed its deadline');
    try {
      return hold.volumes.map((volumeId) => ({ volumeId, boundary: this.#volume(volumeId).cut() }));
    } finally {
      this.release(token);
    }
  }

  release(token: string): void {
    const hold = this.#holds.get(token);
    if (hold === undefined) return;
    this.#holds.delete(token);
    hold.cancelTimer();
    for (const volumeId of hold.volumes) this.#open.get(volumeId)?.release();
  }

  resumeCut(volumeId: VolumeId, boundary: EpochNumber): string | undefined {
    return this.#volume(volumeId).resumeCut(boundary);
  }

  changedBlocks(cut: CutVolume, since: EpochNumber, from: number, most: number): ChangedBlocks {
    return this.#volume(cut.volumeId).changedBlocks(cut.boundary, since, from, most);
  }

  writtenPages(cut: CutVolume, since: EpochNumber, block: number): PageMask {
    return this.#volume(cut.volumeId).writtenPages(cut.boundary, since, block);
  }

  blockAsOfCut(cut: CutVolume, block: number): BlockAsOfCut {
    return this.#volume(cut.volumeId).blockAsOfCut(cut.boundary, block);
  }

  captured(cut: CutVolume, blocks: readonly number[]): void {
    const volume = this.#open.get(cut.volumeId);
    for (const block of blocks) volume?.captured(cut.boundary, block);
  }

  async confirmCut(cut: CutVolume): Promise<void> {
    await this.#volume(cut.volumeId).confirmCut(cut.boundary);
  }

  finishCut(cut: CutVolume, completed: boolean): void {
    this.#open.get(cut.volumeId)?.finishCut(cut.boundary, completed);
  }

  directoryOf(volumeId: VolumeId): string {
    return `${this.#options.directory}/${volumeId}`;
  }

  #volume(volumeId: VolumeId): LocalVolume {
    const volume = this.#open.get(volumeId);
    if (volume === undefined) throw new Error(`${volumeId} is not open here`);
    return volume;
  }
}
