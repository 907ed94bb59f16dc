import type { DataKey } from '../encryption/data-key.ts';
import type { ObjectReader } from '../objects/object-store.ts';
import type { Patience } from '../objects/patience.ts';
import { allOf } from '../types/all-of.ts';
import { inOrder } from '../types/in-order.ts';
import { keepLatest } from '../types/keep-latest.ts';
import { giveBack } from '../types/memory.ts';
import { asBlock, BLOCK_BYTES, type BlockIndex, type Sha256 } from '../types/units.ts';
import type { BlockSource } from '../volumes/block-source.ts';
import {
  applyPatch,
  type BlockLocation,
  byPlace,
  decodeRecord,
  follows,
  type RecordLocation,
  recordsOf,
} from './block-encoding.ts';
import { fetchPatiently } from './fetch.ts';
import { Manifest } from './manifest.ts';
import { LEAF_BLOCKS } from './manifest-node.ts';
import { packKey } from './pack.ts';

const CACHED_BLOCKS = 32;

/** How much of a snapshot is fetched at once by who reads it from one end to the other. */
export type Stride = {
  /** Blocks that lie together in a pack are fetched with one request, up to this many. */
  runBlocks: number;
  /** So many are in memory or under way, those of the run that the caller is busy with included. */
  blocksAtOnce: number;
};

/** Small ones: between any two blocks, a guest's request may want the thread. */
const GUESTS_FIRST: Stride = { runBlocks: 4, blocksAtOnce: 20 };

/** Where a block's bytes are to be left: 512 KiB, which are the caller's again once it has been given the block. */
export type RoomOf = (block: BlockIndex) => Buffer;

type Found = { block: BlockIndex; location: BlockLocation };
/** `memory`: all buffers that they lie in, and those that came before them. */
type FetchedRun = { blocks: { block: BlockIndex; bytes: Buffer }[]; memory: Buffer[] };

/** A completed snapshot's blocks, read from the object store. Every record is checked against its SHA-256. */
export class SnapshotSource implements BlockSource {
  readonly manifest: Manifest;
  readonly #store: ObjectReader;
  readonly #patience: Patience;
  readonly #cache = new Map<BlockIndex, Promise<Buffer | undefined>>();

  constructor(store: ObjectReader, manifest: Manifest, patience: Patience) {
    this.#store = store;
    this.#patience = patience;
    this.manifest = manifest;
  }

  /** @param key of an encrypted snapshot */
  static of(
    store: ObjectReader,
    root: Sha256 | undefined,
    patience: Patience,
    key: DataKey | undefined,
  ): SnapshotSource {
    return new SnapshotSource(store, new Manifest(store, root, patience, key), patience);
  }

  /** A block's bytes are there until the event loop's next turn: then their memory may be another's. */
  read(block: BlockIndex): Promise<Buffer | undefined> {
    const cached = this.#cache.get(block);
    if (cached !== undefined) return cached;
    const reading = this.#read(block);
    for (const gone of keepLatest(this.#cache, CACHED_BLOCKS, block, reading)) giveBackNextTurn(gone);
    reading.catch(() => this.#cache.delete(block));
    return reading;
  }

  async #read(block: BlockIndex): Promise<Buffer | undefined> {
    const location = await this.manifest.locate(block);
    return location && fetchPatiently(this.#patience, () => this.#fetchBlock({ block, location }));
  }

  /** Reads blocks to where they belong in `target`, one after another; nothing is kept of them. */
  async readInto(blocks: readonly BlockIndex[], target: Buffer): Promise<void> {
    const runs: Found[][] = [[]];
    for (const [index, block] of blocks.entries()) {
      const location = await this.manifest.locate(block);
      if (location === undefined) {
        target.fill(0, index * BLOCK_BYTES, (index + 1) * BLOCK_BYTES);
        continue;
      }
      const last = runs[runs.length - 1].at(-1);
      if (last !== undefined && !follows(last.location.whole, location.whole)) runs.push([]);
      runs[runs.length - 1].push({ block, location });
    }
    const roomOf = (block: BlockIndex): Buffer => {
      const at = blocks.indexOf(block) * BLOCK_BYTES;
      return target.subarray(at, at + BLOCK_BYTES);
    };
    await Promise.all(
      runs.map(async (run) => {
        const fetched = await fetchPatiently(this.#patience, () => this.#fetchRun(run, roomOf));
        for (const bytes of fetched.memory) giveBack(bytes);
      }),
    );
  }

  /**
   * A block's bytes are there until the next one is asked for; or in the rooms that are given for them, of which so many are
   * in use as may be in memory.
   */
  async *blocks(
    from: BlockIndex,
    stride = GUESTS_FIRST,
    roomOf?: RoomOf,
  ): AsyncGenerator<{ block: BlockIndex; bytes: Buffer }> {
    const runs = this.#runs(from, stride.runBlocks);
    const fetch = (run: Found[]): Promise<FetchedRun> => {
      // Once for each, however often it is fetched.
      const rooms = roomOf && new Map(run.map(({ block }) => [block, roomOf(block)]));
      return fetchPatiently(this.#patience, () => this.#fetchRun(run, (block) => rooms?.get(block)));
    };
    for await (const { blocks, memory } of inOrder(runs, stride.blocksAtOnce, fetch, (run) => run.length)) {
      yield* blocks;
      for (const bytes of memory) giveBack(bytes);
    }
  }

  /** The first block at or after `from` that holds data; undefined when there is none. */
  async nextData(from: BlockIndex): Promise<BlockIndex | undefined> {
    for await (const { number, leaf } of this.manifest.leaves(Math.floor(from / LEAF_BLOCKS))) {
      let nearest = Number.POSITIVE_INFINITY;
      for (const slot of leaf.keys()) {
        const block = number * LEAF_BLOCKS + slot;
        if (block >= from && block < nearest) nearest = block;
      }
      if (nearest !== Number.POSITIVE_INFINITY) return asBlock(nearest);
    }
    return undefined;
  }

  async *#runs(from: BlockIndex, mostBlocks: number): AsyncGenerator<Found[]> {
    let run: Found[] = [];
    for await (const { number, leaf } of this.manifest.leaves(Math.floor(from / LEAF_BLOCKS))) {
      for (const [slot, location] of leaf) {
        const block = asBlock(number * LEAF_BLOCKS + slot);
        if (block < from) continue;
        if (
          run.length === mostBlocks ||
          (run.length > 0 && !follows(run[run.length - 1].location.whole, location.whole))
        ) {
          yield run;
          run = [];
        }
        run.push({ block, location });
      }
    }
    if (run.length > 0) yield run;
  }

  async #fetchRun(run: readonly Found[], roomOf: (block: BlockIndex) => Buffer | undefined): Promise<FetchedRun> {
    const memory: Buffer[] = [];
    const stored = this.#fetchTogether(run);
    // All of them, also where one fails: into the same rooms they may be fetched again.
    const blocks = await allOf(run, async (found) => {
      const { block } = found;
      return { block, bytes: await this.#putTogether(found, stored, memory, roomOf(block)) };
    });
    return { blocks, memory };
  }

  async #fetchBlock(found: Found): Promise<Buffer> {
    const memory: Buffer[] = [];
    const block = await this.#putTogether(found, this.#fetchTogether([found]), memory);
    for (const bytes of memory) if (bytes.buffer !== block.buffer) giveBack(bytes);
    return block;
  }

  /** One request for records that lie side by side, whole ones and patches alike. */
  #fetchTogether(blocks: readonly Found[]): Map<RecordLocation, Promise<Buffer>> {
    const records = blocks.flatMap(({ location }) => recordsOf(location).map(({ record }) => record));
    const inOrder = records.sort(byPlace);
    const stored = new Map<RecordLocation, Promise<Buffer>>();
    for (let first = 0; first < inOrder.length; ) {
      const { pack, offset } = inOrder[first];
      let [next, end] = [first, offset];
      while (inOrder[next]?.pack === pack && inOrder[next].offset === end) {
        end += inOrder[next].length;
        next += 1;
      }
      const fetching = this.#store.getRange(packKey(pack), offset, end - offset);
      for (const record of inOrder.slice(first, next)) {
        const start = record.offset - offset;
        stored.set(
          record,
          fetching.then((bytes) => bytes.subarray(start, start + record.length)),
        );
      }
      first = next;
    }
    return stored;
  }

  /**
   * @param memory is told of each buffer that comes into being
   * @param room where the block is to be left, if it is the caller's to say
   */
  async #putTogether(
    { block, location }: Found,
    stored: Map<RecordLocation, Promise<Buffer>>,
    memory: Buffer[],
    room?: Buffer,
  ): Promise<Buffer> {
    const [whole, pages] = await allOf(recordsOf(location), async ({ record, bytes }) => {
      const where = `block ${block} (object ${packKey(record.pack)}, ${record.length} bytes at ${record.offset})`;
      const found = (await stored.get(record)) as Buffer;
      const target = record === location.whole ? room : undefined;
      const decoded = await decodeRecord(found, record, bytes, this.manifest.key, where, target);
      memory.push(found);
      if (decoded !== target) memory.push(decoded);
      return decoded;
    });
    if (location.patch !== undefined) applyPatch(whole, location.patch, pages);
    return whole;
  }
}

/** Who has asked for the block looks at it in the turn in which it comes: left to V8, each few would mark the whole heap. */
function giveBackNextTurn(reading: Promise<Buffer | undefined>): void {
  const giveBackLater = (bytes: Buffer | undefined): void => {
    if (bytes !== undefined) setImmediate(giveBack, bytes);
  };
  reading.then(giveBackLater, () => undefined);
}
