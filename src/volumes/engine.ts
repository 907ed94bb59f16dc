import type { DataKey } from '../encryption/data-key.ts';
import type { VolumeId } from '../types/ids.ts';
import type { PageMask } from '../types/page-mask.ts';
import type { EpochNumber } from '../types/units.ts';
import type { BlockSource } from './block-source.ts';
import type { BlockAsOfCut, ChangedBlocks } from './copy-before-write.ts';
import type { Extent } from './extents.ts';

export type NewVolume = {
  volumeId: VolumeId;
  sizeBytes: number;
  /** Its blocks come from a snapshot. */
  restored: boolean;
  /** Nothing that is stored can serve its first snapshot as a base: that one is to hold everything. */
  baseless: boolean;
  /** Of an encrypted volume. */
  key: DataKey | undefined;
};

/** What became of a read that was not to wait: it is done, or where the bytes are. */
export type ReadNow = 'done' | 'on disk' | 'remote';

/** A volume that can be read and written. A method that need not wait returns at once; else a promise. */
export interface OpenVolume {
  readonly sizeBytes: number;
  /** True while some of what is read may have to come from an object store. */
  readonly isPartlyRemote: boolean;
  /** True while a write may have to wait: it then keeps the bytes that it was given until it is done. */
  readonly writesMayWait: boolean;
  /** True while the old bytes of what is overwritten may have to be kept: then `saveAhead` saves time. */
  readonly savesOldPages: boolean;
  /** Tells of writes that are about to come: offset, length, offset, length … in bytes, all within the volume. */
  saveAhead(ranges: readonly number[]): void;
  /**
   * Reads what need not be waited for, into a buffer that may be used again at once. Where it is not `done`, nothing is
   * known of the target: of what is `on disk`, `read` makes all who share the thread wait, unless `bringNear` was before
   * it; what is `remote`, it waits for alone.
   */
  readNow(target: Uint8Array, targetStart: number, length: number, offset: number): ReadNow;
  /** Has a range that is on the local disk read into memory, by another thread. */
  bringNear(offset: number, length: number): Promise<void>;
  read(target: Uint8Array, targetStart: number, length: number, offset: number): void | Promise<void>;
  write(sources: readonly Uint8Array[], length: number, offset: number): void | Promise<void>;
  /** @param isGone asked now and then: once nobody waits for it, the rest of a large range may be left as it is */
  zero(offset: number, length: number, keepAllocated: boolean, isGone?: () => boolean): void | Promise<void>;
  /** @param isGone see zero */
  discard(offset: number, length: number, isGone?: () => boolean): void | Promise<void>;
  /** Resolves when every write answered before the call survives a power loss. */
  flush(): Promise<void>;
  extents(offset: number, length: number, most: number): Extent[] | Promise<Extent[]>;
}

/**
 * What the catalog knows of a volume's cuts: the boundary of its base (1 where there was no cut yet, NO_BASE where none is
 * to be relied on), and the newest.
 */
export type KnownCuts = { base: EpochNumber; newest: EpochNumber };

export type CutVolume = { volumeId: VolumeId; boundary: EpochNumber };

/**
 * What the rest of cleancut relies on to keep volumes. The `local` engine fits it; one on Ceph RBD, where a group
 * snapshot makes the same promise across machines, must too.
 */
export interface VolumeEngine {
  /** Makes a volume of zeroes, or one whose blocks come from a snapshot; resolves when it is durable. */
  create(volume: NewVolume): Promise<void>;

  /**
   * Opens a volume, or gives the one that is open. One that is being opened must not be asked for again.
   * @param origin needed while a restored volume is not all local
   * @param key of an encrypted volume
   * @throws WrongKeyError
   */
  open(
    volumeId: VolumeId,
    origin: BlockSource | undefined,
    key: DataKey | undefined,
    known: KnownCuts,
  ): Promise<OpenVolume>;

  /** Removes a volume and all that belongs to it. One that is not there is no error: a deletion may be done again. */
  remove(volumeId: VolumeId): Promise<void>;

  /** Syncs and closes a volume that no one uses; an open cut or export keeps it open. */
  close(volumeId: VolumeId): Promise<void>;

  /** Fetches what a restored volume still lacks; resolves when it is whole, or when the volume is closed. */
  hydrate(volumeId: VolumeId): Promise<void>;

  /** Makes an open volume larger, while it is in use. */
  grow(volumeId: VolumeId, sizeBytes: number): Promise<void>;

  /** See LocalVolume.forgetHistory. */
  forgetHistory(volumeId: VolumeId, reason: string): Promise<void>;

  /** Does beforehand what a cut needs, so that the hold is short. */
  prepareCut(volumes: readonly VolumeId[]): Promise<void>;

  /**
   * Holds new writes to the volumes until `cut` or `release`, or until the deadline: then all go on, and the cut
   * can no longer be made. Resolves when no write is in flight.
   */
  hold(token: string, volumes: readonly VolumeId[], deadlineMilliseconds: number): Promise<void>;

  /** Marks the cut on all the volumes of a hold, and lets the writes go on. @throws when the hold's deadline has passed */
  cut(token: string): CutVolume[];

  /** Lets the writes go on without a cut. */
  release(token: string): void;

  /** Takes up a pending cut after a restart. @returns why it cannot be had, or undefined */
  resumeCut(volumeId: VolumeId, boundary: EpochNumber): string | undefined;

  /** See LocalVolume.changedBlocks. */
  changedBlocks(cut: CutVolume, since: EpochNumber, from: number, most: number): ChangedBlocks;

  /** See CopyBeforeWrite.writtenPages. */
  writtenPages(cut: CutVolume, since: EpochNumber, block: number): PageMask;

  /** Where the bytes of a block as of a cut are. */
  blockAsOfCut(cut: CutVolume, block: number): BlockAsOfCut;

  /** These blocks of the cut are stored: the volume need not keep them. */
  captured(cut: CutVolume, blocks: readonly number[]): void;

  /** Asked when all of the cut has been read. @throws CutLostError where that cannot be believed */
  confirmCut(cut: CutVolume): Promise<void>;

  /** The cut's snapshot has completed, or is given up. */
  finishCut(cut: CutVolume, completed: boolean): void;
}
