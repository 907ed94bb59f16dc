import type { DataKey } from '../encryption/data-key.ts';
import type { ObjectStore } from '../objects/object-store.ts';
import type { Patience } from '../objects/patience.ts';
import { giveBack } from '../types/memory.ts';
import { asBlock, type BlockIndex, type Sha256 } from '../types/units.ts';
import type { BlockSource } from '../volumes/block-source.ts';
import { applyPatch, type BlockLocation, decodeRecord, type RecordLocation, recordsOf } from './block-encoding.ts';
import { fetchPatiently } from './fetch.ts';
import { Manifest } from './manifest.ts';
import { LEAF_BLOCKS } from './manifest-node.ts';
import { packKey } from './pack.ts';

const CACHED_BLOCKS = 32;
/** Blocks that lie together in a pack are fetched with one request, up to this many. */
const RUN_BLOCKS = 4;
const RUNS_AHEAD = 4;

type Found = { block: BlockIndex; location: BlockLocation };
/** `memory`: all buffers that they lie in, and those that came before them. */
type FetchedRun = { blocks: { block: BlockIndex; bytes: Buffer }[]; memory: Buffer[] };

/** A completed snapshot's blocks, read from the object store. Every record is checked against its SHA-256. */
export class SnapshotSource implements BlockSource {
  readonly manifest: Manifest;
  readonly #store: ObjectStore;
  readonly #patience: Patience;
  readonly #cache = new Map<BlockIndex, Promise<Buffer | undefined>>();

  /** @param key of an encrypted snapshot */
  constructor(store: ObjectStore, root: Sha256 | undefined, patience: Patience, key: DataKey | undefined) {
    this.#store = store;
    this.#patience = patience;
    this.manifest = new Manifest(store, root, patience, key);
  }

  read(block: BlockIndex): Promise<Buffer | undefined> {
    const cached = this.#cache.get(block);
    if (cached !== undefined) return cached;
    const reading = this.#read(block);
    this.#cache.set(block, reading);
    reading.catch(() => this.#cache.delete(block));
    for (const oldest of this.#cache.keys()) {
      if (this.#cache.size <= CACHED_BLOCKS) break;
      this.#cache.delete(oldest);
    }
    return reading;
  }

  async #read(block: BlockIndex): Promise<Buffer | undefined> {
    const location = await this.manifest.locate(block);
    return location && fetchPatiently(this.#patience, () => this.#fetchBlock({ block, location }));
  }

  /**
   * A block's bytes are there until the next one is asked for.
   * @param runsAhead so many requests are under way while the caller is busy with a block
   */
  async *blocks(from: BlockIndex, runsAhead = RUNS_AHEAD): AsyncGenerator<{ block: BlockIndex; bytes: Buffer }> {
    const ahead: Promise<FetchedRun>[] = [];
    for await (const run of this.#runs(from)) {
      const fetching = fetchPatiently(this.#patience, () => this.#fetchRun(run));
      fetching.catch(() => undefined);
      ahead.push(fetching);
      if (ahead.length > runsAhead) yield* handOut(ahead.shift());
    }
    while (ahead.length > 0) yield* handOut(ahead.shift());
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

  async *#runs(from: BlockIndex): AsyncGenerator<Found[]> {
    let run: Found[] = [];
    for await (const { number, leaf } of this.manifest.leaves(Math.floor(from / LEAF_BLOCKS))) {
      for (const [slot, location] of leaf) {
        const block = asBlock(number * LEAF_BLOCKS + slot);
        if (block < from) continue;
        if (run.length > 0 && !follows(run, location.whole)) {
          yield run;
          run = [];
        }
        run.push({ block, location });
      }
    }
    if (run.length > 0) yield run;
  }

  async #fetchRun(run: readonly Found[]): Promise<FetchedRun> {
    const { pack, offset } = run[0].location.whole;
    const last = run[run.length - 1].location.whole;
    const fetched = this.#store.getRange(packKey(pack), offset, last.offset + last.length - offset);
    const memory: Buffer[] = [];
    const blocks = await Promise.all(
      run.map(async (found) => {
        const start = found.location.whole.offset - offset;
        const stored = fetched.then((bytes) => bytes.subarray(start, start + found.location.whole.length));
        return { block: found.block, bytes: await this.#putTogether(found, stored, memory) };
      }),
    );
    return { blocks, memory };
  }

  #fetchBlock(found: Found): Promise<Buffer> {
    return this.#putTogether(found, this.#fetch(found.location.whole), []);
  }

  #fetch({ pack, offset, length }: RecordLocation): Promise<Buffer> {
    return this.#store.getRange(packKey(pack), offset, length);
  }

  /**
   * @param stored the whole record's bytes, on their way; those of a patch are fetched meanwhile
   * @param memory is told of each buffer that comes into being
   */
  async #putTogether({ block, location }: Found, stored: Promise<Buffer>, memory: Buffer[]): Promise<Buffer> {
    const records = recordsOf(location);
    const [whole, pages] = await Promise.all(
      records.map(async ({ record, bytes }, index) => {
        const where = `block ${block} (object ${packKey(record.pack)}, ${record.length} bytes at ${record.offset})`;
        const found = await (index === 0 ? stored : this.#fetch(record));
        const decoded = await decodeRecord(found, record, bytes, this.manifest.key, where);
        memory.push(found, decoded);
        return decoded;
      }),
    );
    if (location.patch !== undefined) applyPatch(whole, location.patch, pages);
    return whole;
  }
}

async function* handOut(
  fetching: Promise<FetchedRun> | undefined,
): AsyncGenerator<{ block: BlockIndex; bytes: Buffer }> {
  if (fetching === undefined) return;
  const { blocks, memory } = await fetching;
  yield* blocks;
  for (const bytes of memory) giveBack(bytes);
}

function follows(run: readonly Found[], next: RecordLocation): boolean {
  const last = run[run.length - 1].location.whole;
  return run.length < RUN_BLOCKS && last.pack === next.pack && last.offset + last.length === next.offset;
}
