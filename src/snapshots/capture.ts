import type { ObjectStore } from '../objects/object-store.ts';
import { type Patience, patiently } from '../objects/patience.ts';
import { ConcurrencyLimit } from '../types/concurrency-limit.ts';
import { inOrder } from '../types/in-order.ts';
import { giveBack } from '../types/memory.ts';
import { ALL_PAGES, type PageMask } from '../types/page-mask.ts';
import type { Sha256 } from '../types/units.ts';
import { PagedBitmap } from '../volumes/paged-bitmap.ts';
import { BatchReader, type PlannedBatch } from './batch-reader.ts';
import { type BlockLocation, blockHash, type Encoded, encodeBlock, isZero } from './block-encoding.ts';
import {
  batchesOf,
  isInBase,
  leafOf,
  type PlannedPiece,
  planPieces,
  type WantedLeaf,
  wantedLeaves,
} from './capture-plan.ts';
import type { CutReader } from './cut-reader.ts';
import {
  BLOCKS_AHEAD,
  type ChangedLeaves,
  type Manifest,
  NODES_AT_ONCE,
  storeManifest,
  weightOfLeaf,
} from './manifest.ts';
import { type EncodedNode, encodeLeaf, LEAF_BLOCKS, type Leaf, nodeKey } from './manifest-node.ts';
import { PackBuilder, packKey } from './pack.ts';
import { PackRooms } from './pack-rooms.ts';
import type { SnapshotSource } from './snapshot-source.ts';
import type { StoredRecord, UploadJournal } from './upload-journal.ts';

export type Capture = {
  cut: CutReader;
  /** How many blocks the volume has. */
  blocks: number;
  store: ObjectStore;
  /** Its key, if it has one, is that of what is captured, too. */
  base: Manifest;
  /**
   * Where the blocks are that the cut does not have, when that is not the base: of a volume that is still being restored
   * from a snapshot under another key.
   */
  absentFrom?: SnapshotSource | undefined;
  journal: UploadJournal;
  patience: Patience;
  onProgress: (progress: CaptureProgress) => void;
  signal: AbortSignal;
  /** Shared with other captures, where memory is to be bounded for all of them. */
  rooms?: PackRooms;
  /** Waits, before each batch of blocks is read, for who has precedence. */
  rest?: () => Promise<void>;
  /** How blocks (in shared memory) are encoded, where it is not on libuv's threads. */
  encode?: (block: Buffer) => Promise<Encoded>;
};

export type CaptureProgress = { doneBlocks: number; totalBlocks: number; storedBytes: number };

export type Captured = {
  root: Sha256;
  /** Blocks of the whole snapshot that hold data. */
  dataBlocks: number;
  /** Blocks whose bytes this snapshot added to the store, and the bytes they took. */
  storedBlocks: number;
  storedBytes: number;
};

const PACKS_IN_FLIGHT = 3;
const BATCHES_IN_ENCODING = 2;
/** Decisions that store nothing are written down at least this often. */
const UNJOURNALLED_BLOCKS = 4096;

/** Of captures that share none with others: as many as they want. */
const OWN_ROOMS = new PackRooms(Number.POSITIVE_INFINITY);

/** What is to become of one block. */
type Decision =
  | { kind: 'same'; block: number }
  | { kind: 'zero'; block: number }
  | { kind: 'data'; block: number; sha256: Sha256; pages: PageMask | undefined; encoded: Promise<Encoded> };

type Batch = { decisions: Decision[]; target: Buffer; finishes: number | undefined };

/** What differs from the base in one leaf, and the groups that must be stored before it. */
type LeafChanges = { records: Map<number, StoredRecord | undefined>; groups: Set<Group> };

/** Decisions that wait for one pack to be stored. */
type Group = {
  /** With the room that its bytes lie in; none as long as there is nothing to store. */
  packing: { pack: PackBuilder; room: Buffer } | undefined;
  stored: StoredRecord[];
  zero: number[];
  same: number[];
  done: PromiseWithResolvers<void>;
};

/**
 * Brings a cut into the object store: the blocks that changed are read, compared with the base, encoded, gathered into
 * packs; then the manifest's nodes, from the leaves up. Nothing is named before it is stored.
 *
 * Memory is bounded by a few packs and one bit for each block, whatever the volume's size.
 * @returns the manifest's root @throws when the cut's bytes are lost, or the store fails for longer than the patience
 */
export function capture(options: Capture): Promise<Captured> {
  return new CaptureRun(options).run();
}

class CaptureRun {
  readonly #options: Capture;
  readonly #wanted: PagedBitmap;
  /** By leaf: what differs from the base in leaves that are not stored yet. */
  readonly #changes = new Map<number, LeafChanges>();
  readonly #leaves: ChangedLeaves = new Map();
  readonly #packPuts = new Set<Promise<void>>();
  readonly #leafPuts = new Set<Promise<void>>();
  readonly #packLimit = new ConcurrencyLimit(PACKS_IN_FLIGHT);
  readonly #rooms: PackRooms;
  readonly #reader: BatchReader;
  readonly #nodeLimit = new ConcurrencyLimit(NODES_AT_ONCE);
  #group: Group;
  #doneBlocks = 0;
  #totalBlocks = 0;
  #storedBlocks = 0;
  #storedBytes = 0;
  #failure: { error: unknown } | undefined;

  constructor(options: Capture) {
    this.#options = options;
    this.#wanted = new PagedBitmap(options.blocks);
    this.#rooms = options.rooms ?? OWN_ROOMS;
    this.#reader = new BatchReader(options.cut, options.absentFrom, options.rest ?? (async () => undefined));
    this.#group = this.#newGroup();
  }

  async run(): Promise<Captured> {
    await this.#findWanted();
    this.#totalBlocks = this.#wanted.count();
    this.#replay();
    this.#report();
    try {
      await this.#captureAll();
    } catch (error) {
      this.#failure ??= { error };
    }
    // Whatever went wrong, nothing of this run goes on behind its back.
    this.#group.done.reject(new Error('the capture ended'));
    if (this.#group.packing !== undefined) this.#rooms.forget();
    await Promise.allSettled([...this.#packPuts, ...this.#leafPuts]);
    this.#check();
    const { root, blocks } = await storeManifest(this.#options.base, this.#leaves, (node) => this.#putNode(node));
    return { root, dataBlocks: blocks, storedBlocks: this.#storedBlocks, storedBytes: this.#storedBytes };
  }

  async #findWanted(): Promise<void> {
    const { cut, base, absentFrom } = this.#options;
    let compareAll = false;
    for (let from = 0; ; ) {
      const changed = await cut.changed(from);
      compareAll ||= changed.compareAll;
      // A volume that grew since the cut may name blocks that it did not have then.
      for (const block of changed.blocks) if (block < this.#options.blocks) this.#wanted.set(block);
      const last = changed.blocks.at(-1);
      if (last === undefined || !changed.more) break;
      from = last + 1;
    }
    if (!compareAll) return;
    for await (const { number, leaf } of (absentFrom?.manifest ?? base).leaves()) {
      for (const slot of leaf.keys()) this.#wanted.set(number * LEAF_BLOCKS + slot);
    }
  }

  /** Takes up what an earlier run wrote down. */
  #replay(): void {
    for (const record of this.#options.journal.read()) {
      if (record.kind === 'leaf') {
        this.#changes.delete(record.number);
        this.#leaves.set(record.number, record.leaf);
        continue;
      }
      for (const stored of record.stored) {
        this.#note(stored.block, stored, undefined);
        this.#storedBlocks += 1;
        this.#storedBytes += stored.record.length;
      }
      for (const block of record.zero) this.#note(block, undefined, undefined);
      const blocks = [...record.stored.map(({ block }) => block), ...record.zero, ...record.same];
      for (const block of blocks) this.#wanted.clear(block);
      this.#doneBlocks += blocks.length;
      this.#options.cut.captured(blocks);
    }
  }

  async #captureAll(): Promise<void> {
    const begunEarlier = new Set(this.#changes.keys());
    // While some batches are encoded elsewhere, the next is read and hashed here.
    const encoding: Batch[] = [];
    const gatherNext = async (): Promise<void> => {
      const next = encoding.shift();
      if (next !== undefined) await this.#gather(next);
    };
    for await (const { pieces, target, finishes } of this.#reader.read(this.#batches(begunEarlier))) {
      const decisions = pieces.map(({ piece, bytes, present }): Decision => {
        return present ? this.#compare(piece, bytes) : { kind: 'same', block: piece.block };
      });
      if (encoding.length === BATCHES_IN_ENCODING) await gatherNext();
      encoding.push({ decisions, target, finishes });
      this.#check();
    }
    while (encoding.length > 0) await gatherNext();
    for (const leaf of begunEarlier) this.#finishLeaf(leaf);
    this.#closeGroup();
    await Promise.all([...this.#packPuts, ...this.#leafPuts]);
  }

  /** @param begunEarlier loses those whose blocks are all in a batch */
  async *#batches(begunEarlier: Set<number>): AsyncGenerator<PlannedBatch> {
    const planned = inOrder(
      wantedLeaves(this.#wanted),
      BLOCKS_AHEAD,
      (wanted) => this.#plan(wanted),
      ({ blocks }) => weightOfLeaf({ blocks: blocks.length }),
    );
    for await (const { leaf, pieces } of planned) {
      begunEarlier.delete(leaf);
      let left = pieces.length;
      for (const batch of batchesOf(pieces)) {
        left -= batch.length;
        yield { pieces: batch, finishes: left === 0 ? leaf : undefined };
      }
    }
  }

  async #plan({ leaf, blocks }: WantedLeaf): Promise<{ leaf: number; pieces: PlannedPiece[] }> {
    const base = await this.#options.base.leaf(leaf);
    const written = base === undefined ? blocks.map(() => ALL_PAGES) : await this.#options.cut.written(blocks);
    return { leaf, pieces: planPieces(blocks, written, base ?? new Map()) };
  }

  #compare(piece: PlannedPiece, bytes: Buffer): Decision {
    const { block, pages, before, isPatch } = piece;
    if (!isPatch && isZero(bytes)) return { kind: before === undefined ? 'same' : 'zero', block };
    const digest = blockHash(bytes, this.#options.base.key);
    if (isInBase(piece, digest)) return { kind: 'same', block };
    const encoded = (this.#options.encode ?? encodeBlock)(bytes);
    // Awaited when its batch is gathered; until then a failure must not count as one that no one handles.
    encoded.catch(() => undefined);
    return { kind: 'data', block, sha256: digest, pages: isPatch ? pages : undefined, encoded };
  }

  async #gather({ decisions, target, finishes }: Batch): Promise<void> {
    const group = this.#group;
    const data: { block: number; sha256: Sha256; pages: PageMask | undefined; encoded: Encoded }[] = [];
    for (const decision of decisions) {
      switch (decision.kind) {
        case 'same':
          group.same.push(decision.block);
          break;
        case 'zero':
          group.zero.push(decision.block);
          this.#note(decision.block, undefined, group);
          break;
        case 'data':
          data.push({ ...decision, encoded: await decision.encoded });
          break;
        default:
          decision satisfies never;
      }
    }
    for (const { block, sha256: digest, pages, encoded } of data) {
      group.packing ??= await this.#newPack();
      const stored = { block, record: group.packing.pack.add(encoded, digest), pages };
      if (encoded.stored.buffer !== target.buffer) giveBack(encoded.stored);
      group.stored.push(stored);
      this.#note(block, stored, group);
      this.#storedBlocks += 1;
      this.#storedBytes += stored.record.length;
    }
    this.#reader.release(target);
    if (finishes !== undefined) this.#finishLeaf(finishes);
    if (!group.packing?.pack.isFull && group.zero.length + group.same.length < UNJOURNALLED_BLOCKS) return;
    this.#closeGroup();
    // Bounded memory: no more than so many packs between here and the store.
    while (this.#packPuts.size >= PACKS_IN_FLIGHT) await Promise.race(this.#packPuts);
  }

  #closeGroup(): void {
    const group = this.#group;
    this.#group = this.#newGroup();
    const { journal, cut, patience } = this.#options;
    const blocks = [...group.stored.map(({ block }) => block), ...group.zero, ...group.same];
    const task = this.#packLimit.run(async () => {
      if (group.packing !== undefined) await this.#storePack(group.packing);
      if (blocks.length > 0) {
        const record = { kind: 'blocks', stored: group.stored, zero: group.zero, same: group.same } as const;
        // The journal before the volume: a block that the volume no longer keeps must be found again after a kill.
        await patiently(patience, async () => journal.append(record));
        cut.captured(blocks);
      }
      this.#doneBlocks += blocks.length;
      this.#report();
    });
    this.#track(this.#packPuts, task);
    task.then(group.done.resolve, group.done.reject);
  }

  /** All blocks of the leaf are decided: it can be stored once the packs that it names are. */
  #finishLeaf(number: number): void {
    const changes = this.#changes.get(number);
    if (changes === undefined) return;
    this.#changes.delete(number);
    if (this.#leaves.has(number))
      throw new Error(`leaf ${number} was stored already, and has changed: the journal is not right`);
    const { base, journal, patience } = this.#options;
    // A leaf is stored, and said to be in the journal, only when every one of its packs is: a pack that fails fails it too.
    const task = Promise.all([...changes.groups].map((group) => group.done.promise)).then(() =>
      this.#nodeLimit.run(async () => {
        const leaf: Leaf = new Map(await base.leaf(number));
        for (const [slot, stored] of changes.records) {
          if (stored === undefined) leaf.delete(slot);
          else leaf.set(slot, locationOf(stored, leaf.get(slot)));
        }
        let child: { node: Sha256; blocks: number } | undefined;
        if (leaf.size > 0) {
          const encoded = encodeLeaf(leaf, base.key);
          await this.#putNode(encoded);
          child = { node: encoded.node, blocks: leaf.size };
        }
        await patiently(patience, async () => journal.append({ kind: 'leaf', number, leaf: child }));
        this.#leaves.set(number, child);
      }),
    );
    this.#track(this.#leafPuts, task);
  }

  #newGroup(): Group {
    const done = Promise.withResolvers<void>();
    // Whoever waits for it handles its failure; when no one does, the capture has failed by other means.
    done.promise.catch(() => undefined);
    return { packing: undefined, stored: [], zero: [], same: [], done };
  }

  async #newPack(): Promise<{ pack: PackBuilder; room: Buffer }> {
    const room = await this.#rooms.take(this.#options.signal);
    return { pack: new PackBuilder(this.#options.base.key, room), room };
  }

  async #storePack({ pack, room }: { pack: PackBuilder; room: Buffer }): Promise<void> {
    const { store, patience } = this.#options;
    const pieces = pack.finish();
    try {
      await patiently(patience, () => store.put(packKey(pack.id), pieces));
    } catch (error) {
      this.#rooms.forget();
      throw error;
    }
    this.#rooms.give(room);
  }

  #track(tasks: Set<Promise<void>>, task: Promise<void>): void {
    tasks.add(task);
    task.then(
      () => tasks.delete(task),
      (error) => {
        this.#failure ??= { error };
        tasks.delete(task);
      },
    );
  }

  /**
   * @param stored undefined where the block is zeroes
   * @param group the group that must be stored before the leaf is; none for what an earlier run stored
   */
  #note(block: number, stored: StoredRecord | undefined, group: Group | undefined): void {
    const number = leafOf(block);
    let changes = this.#changes.get(number);
    if (changes === undefined) {
      changes = { records: new Map(), groups: new Set() };
      this.#changes.set(number, changes);
    }
    changes.records.set(block % LEAF_BLOCKS, stored);
    if (group !== undefined) changes.groups.add(group);
  }

  async #putNode(encoded: EncodedNode): Promise<void> {
    const { store, patience } = this.#options;
    await patiently(patience, () => store.put(nodeKey(encoded.node), [encoded.bytes]));
  }

  #check(): void {
    this.#options.signal.throwIfAborted();
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  #report(): void {
    this.#options.onProgress({
      doneBlocks: this.#doneBlocks,
      totalBlocks: this.#totalBlocks,
      storedBytes: this.#storedBytes,
    });
  }
}

/** @param before where the base has the block */
function locationOf({ block, record, pages }: StoredRecord, before: BlockLocation | undefined): BlockLocation {
  if (pages === undefined) return { whole: record, patch: undefined };
  if (before === undefined) throw new Error(`block ${block} was stored as a patch of what the base does not have`);
  return { whole: before.whole, patch: { pages, record } };
}
