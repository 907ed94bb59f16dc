import type { IoCounters } from '../nbd/io-counters.ts';
import type { StoreFigures } from '../objects/measured-store.ts';
import type { Captured, CaptureProgress } from '../snapshots/capture.ts';
import type { Repacked } from '../snapshots/repack.ts';
import type { SnapshotId, VolumeId } from '../types/ids.ts';
import type { PageMask } from '../types/page-mask.ts';
import type { EpochNumber, Sha256 } from '../types/units.ts';
import type { BlockAsOfCut, ChangedBlocks } from '../volumes/copy-before-write.ts';
import type { CutVolume } from '../volumes/engine.ts';
import type { GuestLoad } from './pace.ts';

/** What a worker must know to open a volume right. */
export type VolumeOpening = {
  volumeId: VolumeId;
  sizeBytes: number;
  /** The manifest from which absent blocks come, as long as the volume is not all local. */
  origin: Sha256 | undefined;
  /** The latest cut that is stored: the history before it is no longer needed. */
  base: EpochNumber;
  /** Cuts whose snapshots are not finished: their bytes must be kept from the first write on. */
  pendingCuts: EpochNumber[];
  /** Data keys of an encrypted volume, and of an encrypted origin. They live in memory alone. */
  key: Uint8Array | undefined;
  originKey: Uint8Array | undefined;
};

/** A volume to be made: see NewVolume. */
export type VolumeOrder = {
  volumeId: VolumeId;
  sizeBytes: number;
  restored: boolean;
  baseless: boolean;
  key: Uint8Array | undefined;
};

/** A snapshot whose bytes are to be stored again: under another key, or in another place. */
export type RecodeOrder = {
  snapshotId: SnapshotId;
  sizeBytes: number;
  source: { root: Sha256; key: Uint8Array | undefined };
  key: Uint8Array | undefined;
  move: StoreMove;
};

/** Within the store; to the snapshot's folder in the archive, or from there. What has moved is read back. */
export type StoreMove = 'none' | 'to-archive' | 'from-archive';

/** What a repacking may write anew, and what it must leave alone; see Repacking. */
export type RepackOrder = {
  groups: { key: Uint8Array | undefined; roots: Sha256[] }[];
  pinned: { roots: Sha256[]; packs: string[] };
  move: boolean;
  mostBytes: number;
};

/** One worker's part of a cut. */
export type CutOrder = {
  /** By which workers name the cut among themselves. */
  token: string;
  volumeIds: VolumeId[];
  /** The other workers that have a part. */
  others: number[];
  deadlineMilliseconds: number;
};

/** When this worker's writes were held and went on: milliseconds of the machine's monotonic clock, which all processes share. */
export type MadeCut = { cuts: CutVolume[]; heldAt: number; freeAt: number };

/** A cut and how to store it. */
export type CaptureOrder = {
  cut: CutVolume;
  snapshotId: SnapshotId;
  sizeBytes: number;
  base: { boundary: EpochNumber; root: Sha256 | undefined };
};

/** What the upload thread must know besides. */
export type CutOnDisk = {
  directory: string;
  key: Uint8Array | undefined;
  /** See LocalVolume. */
  hydrating: boolean;
  /** Of a volume that is being restored, and has no base yet: where the blocks are that it lacks. */
  absentFrom: { root: Sha256; key: Uint8Array | undefined } | undefined;
};

/** A connection whose handshake is over. */
export type ServeOrder = {
  /** By which `begin` names it. */
  connection: number;
  target:
    | { kind: 'volume'; volumeId: VolumeId }
    | { kind: 'snapshot'; root: Sha256; sizeBytes: number; key: Uint8Array | undefined };
  structuredReplies: boolean;
  baseAllocation: boolean;
  /** The handshake's last answer, and what came after the client's last option. */
  reply: Uint8Array;
  rest: Uint8Array;
};

export type VolumeActivity = IoCounters & {
  volumeId: VolumeId;
  connections: number;
  /** Old pages kept for cuts that are not stored yet. */
  stagedBytes: number;
  hydratedBlocks: number;
  blocks: number;
  /** Why it refuses every request, where it does. */
  fault: string | undefined;
};

/** What the server asks of a data-plane worker. */
export type WorkerMethods = {
  createVolume: (volume: VolumeOrder) => void;
  removeVolume: (volume: { volumeId: VolumeId }) => Promise<void>;
  /** @returns its size, in bytes */
  exportVolume: (opening: VolumeOpening) => Promise<number>;
  /**
   * Resolves when every connection is closed, nothing is under way, and all that was written is durable, or was refused
   * by the disk before. Rejects where the disk refuses it now: then the volume is closed nevertheless.
   */
  endExport: (volume: { volumeId: VolumeId }) => Promise<void>;
  growVolume: (order: { opening: VolumeOpening; sizeBytes: number }) => Promise<void>;
  /** Resolves when the volume is all local (true), or was stopped before (false). */
  hydrate: (opening: VolumeOpening) => Promise<boolean>;
  /** Nothing that is stored of the volume may be relied on any more; its pending cuts are lost. */
  forgetHistory: (order: { opening: VolumeOpening; reason: string }) => Promise<void>;
  /** Takes the socket to another worker: from here on they hear each other. */
  meet: (partner: { worker: number }) => void;
  prepareCut: (order: { volumes: VolumeOpening[] }) => Promise<void>;
  /** Holds the writes to the volumes, cuts them when the other workers hold theirs, and lets the writes go on. */
  cut: (order: CutOrder) => Promise<MadeCut>;
  release: (order: { token: string }) => void;
  /** The cut is made, or not to be: volumes that were opened for it may be closed. */
  endPreparation: (order: { volumeIds: VolumeId[] }) => Promise<void>;
  /** Takes up cuts that were pending; answers why one cannot be had. */
  resumeCuts: (opening: VolumeOpening) => Promise<{ boundary: EpochNumber; reason: string }[]>;
  capture: (order: CaptureOrder & { opening: VolumeOpening }) => Promise<Captured>;
  recode: (order: RecodeOrder) => Promise<Captured>;
  /** Its copy is no longer wanted. */
  cancelRecode: (order: { snapshotId: SnapshotId }) => void;
  repack: (order: RepackOrder) => Promise<Repacked>;
  finishCut: (order: { cut: CutVolume; completed: boolean }) => Promise<void>;
  activity: (order: Record<string, never>) => VolumeActivity[];
  storeFigures: (order: Record<string, never>) => Promise<StoreFigures>;
  /** Takes a connection over, silently. */
  serve: (order: ServeOrder) => void;
  /** The server has let go of the connection's socket: now it may speak. */
  begin: (order: { connection: number }) => void;
  /** Closes all volumes cleanly; the worker then ends. */
  stop: (order: Record<string, never>) => Promise<void>;
};

/** What a worker tells the server. */
export type ServerMethods = {
  /** The worker has the connection's socket; the server is to let go of its own, and say `begin`. */
  taken: (news: { connection: number }) => void;
  progress: (report: { snapshotId: SnapshotId; progress: CaptureProgress }) => void;
  /** The volume has given a cut up: its snapshot cannot be had any more. */
  cutLost: (news: { cut: CutVolume; reason: string }) => void;
  log: (line: { level: 'info' | 'warn' | 'error'; message: string }) => void;
};

/** What the upload thread asks of the thread that owns the volumes. */
export type OwnerMethods = {
  changedBlocks: (question: { cut: CutVolume; since: EpochNumber; from: number; most: number }) => ChangedBlocks;
  writtenPages: (question: { cut: CutVolume; since: EpochNumber; blocks: readonly number[] }) => PageMask[];
  blocksAsOfCut: (question: { cut: CutVolume; blocks: readonly number[] }) => {
    blocks: BlockAsOfCut[];
    load: GuestLoad;
  };
  captured: (news: { cut: CutVolume; blocks: readonly number[] }) => void;
  guestLoad: (question: Record<string, never>) => GuestLoad;
  progress: ServerMethods['progress'];
  log: ServerMethods['log'];
};

/** What that thread does for it. */
export type UploadMethods = {
  capture: (order: CaptureOrder & CutOnDisk) => Promise<Captured>;
  recode: (order: RecodeOrder) => Promise<Captured>;
  cancelRecode: WorkerMethods['cancelRecode'];
  repack: (order: RepackOrder) => Promise<Repacked>;
  storeFigures: (order: Record<string, never>) => StoreFigures;
  cancel: (order: { cut: CutVolume }) => Promise<void>;
};

/** A block of a snapshot, and where its bytes lie. */
export type FetchedBlock = { block: number; slot: number };

/** What the thread that fetches does for a worker: see BlockFetches. */
export type FetchMethods = {
  beginFetch: (order: { fetch: number; source: RecodeOrder['source']; from: number }) => void;
  nextBlocks: (order: { fetch: number }) => Promise<FetchedBlock[]>;
  writtenBlocks: (news: { fetch: number; slots: readonly number[] }) => void;
  endFetch: (order: { fetch: number }) => void;
  storeFigures: (order: Record<string, never>) => StoreFigures;
};

/** An object, or some of its bytes. */
export type ObjectRead = { key: string; range: { offset: number; length: number } | undefined };
/** Where they lie, or they themselves. */
export type ObjectBytes = { slot: number; length: number } | { bytes: Uint8Array };

/** What the thread that reads for guests does for a worker: see SlotReads. */
export type ReadMethods = {
  read: (order: ObjectRead) => Promise<ObjectBytes>;
  taken: (news: { slot: number }) => void;
  storeFigures: (order: Record<string, never>) => StoreFigures;
};

/** How a worker process is set up; in its environment, as JSON. */
export type WorkerSettings = {
  volumesDirectory: string;
  objectStore: string;
  /** Where archived snapshots are. */
  archiveStore?: string | undefined;
  bootId: string;
  stagingLimitBytes: number;
  uploadPatienceMilliseconds: number;
};

/** What the thread that uploads begins with; `channel` is its end of a socketPair. */
export type UploadThreadData = { settings: WorkerSettings; channel: number };
/** The same for the thread that fetches; for `fetchRoom` see newFetchRoom. */
export type FetchThreadData = UploadThreadData & { fetchRoom: SharedArrayBuffer };
/** The same for the thread that reads for guests; for `readRoom` see newReadRoom. */
export type ReadThreadData = UploadThreadData & { readRoom: SharedArrayBuffer };
