/** The thread of a data-plane worker that brings cuts into the object store. */
import os from 'node:os';
import { workerData } from 'node:worker_threads';
import { DataKey } from '../encryption/data-key.ts';
import { folderOf } from '../objects/folder-store.ts';
import { MeasuredStore } from '../objects/measured-store.ts';
import { FinalError, type ObjectStore } from '../objects/object-store.ts';
import { openObjectStore } from '../objects/open-store.ts';
import { type Patience, realPatience } from '../objects/patience.ts';
import { untilAborted } from '../objects/until-aborted.ts';
import type { Encoded, PackId } from '../snapshots/block-encoding.ts';
import { type Captured, type CaptureProgress, capture } from '../snapshots/capture.ts';
import { Manifest } from '../snapshots/manifest.ts';
import { PackRooms } from '../snapshots/pack-rooms.ts';
import { recode, recodeAndRead } from '../snapshots/recode.ts';
import { type Repacked, repack } from '../snapshots/repack.ts';
import { SnapshotSource } from '../snapshots/snapshot-source.ts';
import { FileJournal } from '../snapshots/upload-journal.ts';
import { ConcurrencyLimit } from '../types/concurrency-limit.ts';
import type { SnapshotId } from '../types/ids.ts';
import { asEpoch, blockCount } from '../types/units.ts';
import type { BlockAsOfCut, ChangedBlocks } from '../volumes/copy-before-write.ts';
import { CutFiles } from '../volumes/cut-files.ts';
import type { CutVolume } from '../volumes/engine.ts';
import { NodeDisk } from '../volumes/node-disk.ts';
import { asBaseLost } from './base-lost.ts';
import { Encoder } from './encoder.ts';
import { journalPath } from './journal-path.ts';
import type {
  CaptureOrder,
  CutOnDisk,
  OwnerMethods,
  RecodeOrder,
  RepackOrder,
  UploadMethods,
  UploadThreadData,
} from './messages.ts';
import { Neighbours } from './neighbours.ts';
import { Pace } from './pace.ts';
import { RpcPeer } from './rpc.ts';
import { threadChannel } from './socket-channel.ts';

/** It is the guests' thread that looks for them, and guests wait meanwhile. */
const CHANGED_BLOCKS_AT_ONCE = 1024;
const PROGRESS_MILLISECONDS = 200;
const NO_LONGER_WANTED = 'the snapshot is no longer wanted';
const CAPTURES_AT_ONCE = 2;
/** Beside those: a copy may take hours, too, and no snapshot is to wait for it. */
const COPIES_AT_ONCE = 1;
/** One of more blocks is large, and may take hours: one at a time, so that small ones need not wait for any. */
const LARGE_BLOCKS = 4096;
/** In memory, of all captures: each fills one, and a few are on their way to the store. */
const PACKS_AT_ONCE = 4;

const { settings, channel } = workerData as UploadThreadData;
// Reading and hashing, too, give way to guests' requests. On Linux a priority is a thread's.
os.setPriority(os.constants.priority.PRIORITY_LOW);
const store = new MeasuredStore(await openObjectStore(settings.objectStore, { waits: true }));
const disk = new NodeDisk();
const neighbours = new Neighbours();
const pace = new Pace(
  () => owner.call('guestLoad', {}),
  () => neighbours.busyShare(),
);
const encoder = new Encoder();
const captures = new ConcurrencyLimit(CAPTURES_AT_ONCE);
const largeCaptures = new ConcurrencyLimit(1);
const rooms = new PackRooms(PACKS_AT_ONCE);
const running = new Map<string, { abort: AbortController; ended: Promise<unknown> }>();
const copies = new ConcurrencyLimit(COPIES_AT_ONCE);
const copying = new Map<SnapshotId, AbortController>();
let archive: Promise<ObjectStore> | undefined;

const methods: UploadMethods = {
  async capture(order) {
    const abort = new AbortController();
    const work = captureInTurn(order, abort.signal);
    const key = keyOf(order.cut);
    running.set(key, { abort, ended: work.catch(() => undefined) });
    try {
      return await work;
    } finally {
      running.delete(key);
    }
  },
  async recode(order) {
    const abort = new AbortController();
    copying.set(order.snapshotId, abort);
    try {
      return await copies.run(() => recodeSnapshot(order, abort.signal));
    } finally {
      copying.delete(order.snapshotId);
    }
  },
  cancelRecode({ snapshotId }) {
    copying.get(snapshotId)?.abort(new Error(NO_LONGER_WANTED));
  },
  repack: (order) => repackStore(order),
  storeFigures: () => store.figures,
  async cancel({ cut }) {
    const run = running.get(keyOf(cut));
    run?.abort.abort(new Error(NO_LONGER_WANTED));
    await run?.ended;
  },
};
const owner = new RpcPeer<OwnerMethods>(threadChannel(channel), methods);

/** Waits for its turn; a cut that is no longer wanted does not. */
function captureInTurn(order: CaptureOrder & CutOnDisk, signal: AbortSignal): Promise<Captured> {
  let begun = false;
  const inTurn = (known?: ChangedBlocks): Promise<Captured> =>
    captures.run(() => {
      signal.throwIfAborted();
      begun = true;
      return captureCut(order, known, signal);
    });
  const work = changedBlocks(order.cut, order.base, 0).then(async (first) =>
    (await isLarge(order, first)) ? largeCaptures.run(inTurn) : inTurn(first),
  );
  work.catch(() => undefined);
  const unwanted = Promise.withResolvers<never>();
  signal.addEventListener('abort', () => {
    // One that has begun ends by itself, and must have ended before anyone says so.
    if (!begun) unwanted.reject(signal.reason);
  });
  return Promise.race([work, unwanted.promise]);
}

async function isLarge({ cut, base }: CaptureOrder, first: ChangedBlocks): Promise<boolean> {
  let count = 0;
  for (let next = first; ; ) {
    count += next.blocks.length;
    const last = next.blocks.at(-1);
    if (count > LARGE_BLOCKS) return true;
    if (last === undefined || !next.more) return false;
    next = await changedBlocks(cut, base, last + 1);
  }
}

function changedBlocks(cut: CutVolume, base: CaptureOrder['base'], from: number): Promise<ChangedBlocks> {
  return owner.call('changedBlocks', { cut, since: asEpoch(base.boundary), from, most: CHANGED_BLOCKS_AT_ONCE });
}

/** @param first what the owner has said already of the blocks that changed */
async function captureCut(
  order: CaptureOrder & CutOnDisk,
  first: ChangedBlocks | undefined,
  signal: AbortSignal,
): Promise<Captured> {
  const { cut, base, sizeBytes, snapshotId, absentFrom } = order;
  const begun = performance.now();
  const patience = uploadPatience(snapshotId, signal);
  // Whoever has it cancelled waits for its end: it must not wait for a store that is away.
  const cancellable = untilAborted(store, signal);
  const key = order.key && new DataKey(order.key);
  const files = new CutFiles(disk, order.directory, sizeBytes, key, order.hydrating);
  const path = journalPath(order.directory, cut.boundary);
  const journal = new FileJournal(disk.open(path, disk.exists(path) ? 'read-write' : 'create'));
  const progress = new ProgressReports(snapshotId);
  try {
    return await capture({
      cut: {
        async changed(from) {
          // What the dirty bits of a cut say stays so. (Which blocks hold data does not.)
          if (from === 0 && first !== undefined && !first.compareAll) return first;
          return changedBlocks(cut, base, from);
        },
        written: (blocks) => owner.call('writtenPages', { cut, since: asEpoch(base.boundary), blocks }),
        read: (pieces, target) => files.read(pieces, target, (asked) => asOfCut(cut, asked)),
        captured: (blocks) => owner.tell('captured', { cut, blocks }),
      },
      blocks: blockCount(sizeBytes),
      store: cancellable,
      base: new Manifest(cancellable, base.root, patience, key),
      absentFrom: absentFrom && sourceOf(cancellable, absentFrom, patience),
      journal,
      patience,
      onProgress: progress.note,
      signal,
      rooms,
      rest: () => pace.rest(performance.now() - begun),
      encode: encodeAtPace,
    });
  } catch (error) {
    throw asBaseLost(error, base.root !== undefined && absentFrom === undefined);
  } finally {
    progress.end();
    files.close();
    journal.close();
  }
}

/** One question for what the owner says of the blocks and for how busy its guests are: this thread waits for each. */
async function asOfCut(cut: CutVolume, asked: readonly number[]): Promise<BlockAsOfCut[]> {
  const { blocks, load } = await owner.call('blocksAsOfCut', { cut, blocks: asked });
  pace.note(load);
  return blocks;
}

async function recodeSnapshot(order: RecodeOrder, signal: AbortSignal): Promise<Captured> {
  signal.throwIfAborted();
  const { snapshotId, source, sizeBytes } = order;
  const begun = performance.now();
  const patience = uploadPatience(snapshotId, signal);
  const [from, to] = (await placesOf(order)).map((place) => untilAborted(place, signal));
  const progress = new ProgressReports(snapshotId);
  const storing = {
    store: to,
    patience,
    key: order.key && new DataKey(order.key),
    onProgress: progress.note,
    signal,
    rooms,
    rest: () => pace.rest(performance.now() - begun),
    encode: encodeAtPace,
  };
  try {
    const recoding = order.move === 'none' ? recode : recodeAndRead;
    return await recoding(sourceOf(from, source, patience), sizeBytes, storing);
  } finally {
    progress.end();
  }
}

/** @returns where the bytes come from, and where they go */
async function placesOf({ snapshotId, move }: RecodeOrder): Promise<[ObjectStore, ObjectStore]> {
  if (move === 'none') return [store, store];
  if (settings.archiveStore === undefined) throw new FinalError('the server has no --archive-store');
  archive ??= openObjectStore(settings.archiveStore, { waits: true });
  const folder = folderOf(await archive, snapshotId);
  return move === 'to-archive' ? [store, folder] : [folder, store];
}

function encodeAtPace(block: Buffer): Promise<Encoded> {
  return encoder.encode(block, pace.factor);
}

function repackStore({ groups, pinned, move, mostBytes }: RepackOrder): Promise<Repacked> {
  const roots = groups.flatMap((group) => {
    const key = group.key && new DataKey(group.key);
    return group.roots.map((root) => ({ root, key }));
  });
  const packs = pinned.packs as PackId[];
  const patience = uploadPatience('repacking', undefined);
  return repack({ store, patience, roots, pinned: { roots: pinned.roots, packs }, move, mostBytes });
}

function sourceOf(store: ObjectStore, { root, key }: RecodeOrder['source'], patience: Patience): SnapshotSource {
  return SnapshotSource.of(store, root, patience, key && new DataKey(key));
}

function uploadPatience(what: SnapshotId | 'repacking', signal: AbortSignal | undefined): Patience {
  return realPatience(
    settings.uploadPatienceMilliseconds,
    (error, attempt) => {
      signal?.throwIfAborted();
      const message = `${what}: attempt ${attempt} failed, trying again: ${error.message}`;
      owner.tell('log', { level: 'warn', message });
    },
    signal,
  );
}

/** How far an upload has come: told a few times a second, and not at all of one that is over sooner. */
class ProgressReports {
  readonly #snapshotId: SnapshotId;
  #latest: CaptureProgress | undefined;
  #timer: NodeJS.Timeout | undefined;

  constructor(snapshotId: SnapshotId) {
    this.#snapshotId = snapshotId;
  }

  readonly note = (progress: CaptureProgress): void => {
    this.#latest = progress;
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      if (this.#latest !== undefined) owner.tell('progress', { snapshotId: this.#snapshotId, progress: this.#latest });
    }, PROGRESS_MILLISECONDS);
  };

  /** Nothing more is told: a snapshot that is no longer pending must not seem to be again. */
  end(): void {
    clearTimeout(this.#timer);
  }
}

function keyOf(cut: { volumeId: string; boundary: number }): string {
  return `${cut.volumeId} ${cut.boundary}`;
}
