import type { DataKey } from '../encryption/data-key.ts';
import type { ObjectStore } from '../objects/object-store.ts';
import { type Patience, patiently } from '../objects/patience.ts';
import { allOf } from '../types/all-of.ts';
import { ConcurrencyLimit } from '../types/concurrency-limit.ts';
import { inOrder } from '../types/in-order.ts';
import { giveBack } from '../types/memory.ts';
import type { Sha256 } from '../types/units.ts';
import {
  type BlockLocation,
  decodeRecord,
  encodeBlock,
  type PackId,
  type RecordLocation,
  recordsOf,
} from './block-encoding.ts';
import { fetchPatiently } from './fetch.ts';
import { NODES_AT_ONCE } from './manifest.ts';
import {
  type Branch,
  checkHash,
  decodeBranch,
  decodeLeaf,
  type EncodedNode,
  encodeBranch,
  encodeLeaf,
  isLeaf,
  type Leaf,
  nodeKey,
  referencesOf,
} from './manifest-node.ts';
import { newPackRoom, PackBuilder, packBytes, packKey } from './pack.ts';
import { walkNodes } from './walk-nodes.ts';

/** A manifest, with the key of an encrypted one. */
export type KeyedRoot = { root: Sha256; key: DataKey | undefined };

export type Repacking = {
  store: ObjectStore;
  patience: Patience;
  /** Manifests that may be written anew, with their blocks in other places. */
  roots: readonly KeyedRoot[];
  /** Manifests and packs that are in use as they are: a pack that one of them names is left alone. */
  pinned: { roots: readonly Sha256[]; packs: readonly PackId[] };
  /** False: only looks. */
  move: boolean;
  /** At most so many bytes of blocks are moved; the packs that are deadest come first. */
  mostBytes: number;
};

export type Repacked = {
  /** Packs of which less than half is needed: how many, their bytes that nothing needs, and those that were (or are to be) moved. */
  packs: number;
  deadBytes: number;
  movedBytes: number;
  /** Manifests that were written anew: the same blocks with the same bytes, in other places. */
  renamed: { from: Sha256; to: Sha256 }[];
};

/** What is known of all packs is kept for this much of the store at a time. */
const SURVEYED_BYTES = 256 * 1024 ** 3;
const MOVED_AT_ONCE = 8;
/** Nodes that wait for the pack that they name. */
const WAITING_NODES = 256;

/**
 * Moves what is still needed out of packs that are mostly dead, into new ones, and writes the manifests that name it
 * anew. Nothing that was there is changed or removed: whoever reads by the old manifests goes on, and a repacking that
 * is cut short leaves nothing but objects that no one names.
 *
 * A block is read, checked against its hash, and encoded again; one that is damaged stays where it is.
 */
export async function repack(options: Repacking): Promise<Repacked> {
  const { store, mostBytes } = options;
  let total = 0;
  for await (const { bytes } of store.list('packs/')) total += bytes;
  const parts = Math.max(1, Math.ceil(total / SURVEYED_BYTES));
  const result: Repacked = { packs: 0, deadBytes: 0, movedBytes: 0, renamed: [] };
  let roots = options.roots.map((each) => ({ ...each, first: each.root }));
  for (let part = 0; part < parts; part += 1) {
    const inPart = (pack: string): boolean => parts === 1 || Number.parseInt(pack.slice(0, 6), 16) % parts === part;
    const chosen = await choosePacks(options, roots, inPart, mostBytes - result.movedBytes);
    result.packs += chosen.packs.size;
    result.deadBytes += chosen.deadBytes;
    if (!options.move) {
      result.movedBytes += chosen.liveBytes;
      continue;
    }
    if (chosen.packs.size === 0) continue;
    const rewriting = new Rewriting(options, chosen.packs);
    // One key after the other: a pack's blocks are all under the same.
    const byKey = Map.groupBy(roots, ({ key }) => key);
    for (const [key, group] of byKey) await rewriting.rewriteAll(group, key);
    result.movedBytes += rewriting.movedBytes;
    roots = roots.map((each) => ({ ...each, root: rewriting.renamed.get(each.root) ?? each.root }));
  }
  result.renamed = roots.flatMap(({ first, root }) => (first === root ? [] : [{ from: first, to: root }]));
  return result;
}

/** The packs to be emptied, of those that `inPart` lets through. */
async function choosePacks(
  { store, patience, pinned }: Repacking,
  roots: readonly KeyedRoot[],
  inPart: (pack: string) => boolean,
  mostBytes: number,
): Promise<{ packs: Set<PackId>; deadBytes: number; liveBytes: number }> {
  const inUse = new Set<PackId>(pinned.packs);
  const seen = new Set<Sha256>();
  await walkNodes(pinned.roots, async (node) => {
    if (seen.has(node)) return [];
    seen.add(node);
    const { nodes, packs } = referencesOf(node, await getNode(store, patience, node));
    for (const pack of packs) inUse.add(pack);
    return nodes;
  });
  // What lies below a pinned node need not be looked at again: its packs are in use.
  const needed = new Map<PackId, Map<number, number>>();
  await walkNodes(roots, async ({ root: node, key }) => {
    if (seen.has(node)) return [];
    seen.add(node);
    const bytes = await getNode(store, patience, node);
    if (!isLeaf(bytes)) return [...decodeBranch(node, bytes, key).values()].map((child) => ({ root: child.node, key }));
    for (const location of decodeLeaf(node, bytes, key).values()) {
      for (const { record } of recordsOf(location)) {
        const { pack, offset, length } = record;
        if (!inPart(pack) || inUse.has(pack)) continue;
        let records = needed.get(pack);
        if (records === undefined) {
          records = new Map();
          needed.set(pack, records);
        }
        records.set(offset, length);
      }
    }
    return [];
  });
  const dead: { pack: PackId; live: number; bytes: number }[] = [];
  for await (const { key, bytes } of store.list('packs/')) {
    const pack = key.slice(key.lastIndexOf('/') + 1) as PackId;
    const records = needed.get(pack);
    if (records === undefined) continue;
    const live = packBytes([...records.values()]);
    if (live * 2 < bytes) dead.push({ pack, live, bytes });
  }
  dead.sort((a, b) => a.live / a.bytes - b.live / b.bytes);
  const chosen = { packs: new Set<PackId>(), deadBytes: 0, liveBytes: 0 };
  for (const { pack, live, bytes } of dead) {
    if (chosen.liveBytes + live > mostBytes) continue;
    chosen.packs.add(pack);
    chosen.deadBytes += bytes - live;
    chosen.liveBytes += live;
  }
  return chosen;
}

/** Writes manifests anew, moving the blocks that they have in some packs to new ones. */
class Rewriting {
  readonly #options: Repacking;
  readonly #packs: ReadonlySet<PackId>;
  readonly renamed = new Map<Sha256, Sha256>();
  readonly #moved = new Map<string, RecordLocation>();
  /** Nodes, children before parents, that may be stored once the pack is. */
  #waiting: EncodedNode[] = [];
  #pack: PackBuilder | undefined;
  /** Where a pack's bytes lie, one pack after the other: the next begins when the last is stored. */
  #room: Buffer | undefined;
  movedBytes = 0;

  constructor(options: Repacking, packs: ReadonlySet<PackId>) {
    this.#options = options;
    this.#packs = packs;
  }

  async rewriteAll(roots: readonly KeyedRoot[], key: DataKey | undefined): Promise<void> {
    const read = async ({ root }: KeyedRoot) => ({ root, bytes: await this.#read(root) });
    for await (const { root, bytes } of inOrder(roots, NODES_AT_ONCE, read)) await this.#rewrite(root, bytes, key);
    await this.#flush();
  }

  /** @returns nothing where it is known already what becomes of the node */
  async #read(node: Sha256): Promise<Buffer | undefined> {
    const { store, patience } = this.#options;
    return this.renamed.has(node) ? undefined : getNode(store, patience, node);
  }

  /** @returns the name that the node has from now on; its own where nothing below it has moved */
  async #rewrite(node: Sha256, bytes: Buffer | undefined, key: DataKey | undefined): Promise<Sha256> {
    const known = this.renamed.get(node);
    if (known !== undefined) return known;
    if (bytes === undefined) throw new Error(`node ${node} was not read, and nothing is known of it`);
    const encoded = isLeaf(bytes)
      ? await this.#rewriteLeaf(decodeLeaf(node, bytes, key), key)
      : await this.#rewriteBranch(decodeBranch(node, bytes, key), key);
    const name = encoded?.node ?? node;
    this.renamed.set(node, name);
    if (encoded !== undefined) {
      this.#waiting.push(encoded);
      if (this.#waiting.length >= WAITING_NODES) await this.#flush();
    }
    return name;
  }

  async #rewriteBranch(branch: Branch, key: DataKey | undefined): Promise<EncodedNode | undefined> {
    let changed = false;
    const next: Branch = new Map();
    const children = [...branch].map(([slot, child]) => ({ slot, child }));
    const read = async (each: (typeof children)[number]) => ({ ...each, bytes: await this.#read(each.child.node) });
    for await (const { slot, child, bytes } of inOrder(children, NODES_AT_ONCE, read)) {
      const node = await this.#rewrite(child.node, bytes, key);
      changed ||= node !== child.node;
      next.set(slot, { node, blocks: child.blocks });
    }
    return changed ? encodeBranch(next, key) : undefined;
  }

  async #rewriteLeaf(leaf: Leaf, key: DataKey | undefined): Promise<EncodedNode | undefined> {
    const moving = [...leaf.values()].flatMap(recordsOf).filter(({ record }) => this.#packs.has(record.pack));
    if (moving.length === 0) return undefined;
    for (let at = 0; at < moving.length; at += MOVED_AT_ONCE) {
      const some = moving.slice(at, at + MOVED_AT_ONCE);
      const fetched = await Promise.all(some.map(({ record, bytes }) => this.#fetch(record, bytes, key)));
      for (const [index, { record }] of some.entries()) {
        if (!this.#moved.has(placeOf(record))) await this.#move(record, fetched[index], key);
      }
    }
    const next: Leaf = new Map();
    for (const [slot, location] of leaf) next.set(slot, this.#movedBlock(location));
    return encodeLeaf(next, key);
  }

  #movedBlock({ whole, patch }: BlockLocation): BlockLocation {
    const now = (record: RecordLocation): RecordLocation => this.#moved.get(placeOf(record)) ?? record;
    return { whole: now(whole), patch: patch && { pages: patch.pages, record: now(patch.record) } };
  }

  /** @returns undefined for a record that has been moved already, or that cannot be had: it stays where it is */
  async #fetch(record: RecordLocation, bytes: number, key: DataKey | undefined): Promise<Buffer | undefined> {
    if (this.#moved.has(placeOf(record))) return undefined;
    const { store, patience } = this.#options;
    const { pack, offset, length } = record;
    return fetchPatiently(patience, async () => {
      const stored = await store.getRange(packKey(pack), offset, length);
      const decoded = await decodeRecord(stored, record, bytes, key, `the record at ${offset} of ${packKey(pack)}`);
      if (decoded.buffer !== stored.buffer) giveBack(stored);
      return decoded;
    }).catch(() => undefined);
  }

  async #move(record: RecordLocation, decoded: Buffer | undefined, key: DataKey | undefined): Promise<void> {
    if (decoded === undefined) return;
    if (this.#pack?.isFull) await this.#flush();
    this.#room ??= newPackRoom();
    this.#pack ??= new PackBuilder(key, this.#room);
    const encoded = await encodeBlock(decoded);
    this.#moved.set(placeOf(record), this.#pack.add(encoded, record.sha256));
    giveBack(encoded.stored);
    giveBack(decoded);
    this.movedBytes += record.length;
  }

  /** The pack before the nodes that name it, as everywhere: whoever can read a node can read what it names. */
  async #flush(): Promise<void> {
    const { store, patience } = this.#options;
    const pack = this.#pack;
    const waiting = this.#waiting;
    this.#pack = undefined;
    this.#waiting = [];
    if (pack !== undefined) {
      const pieces = pack.finish();
      await patiently(patience, () => store.put(packKey(pack.id), pieces));
    }
    const put = ({ node, bytes }: EncodedNode): Promise<void> =>
      patiently(patience, () => store.put(nodeKey(node), [bytes]));
    const [leaves, branches] = [
      waiting.filter(({ bytes }) => isLeaf(bytes)),
      waiting.filter(({ bytes }) => !isLeaf(bytes)),
    ];
    const limit = new ConcurrencyLimit(NODES_AT_ONCE);
    await allOf(leaves, (leaf) => limit.run(() => put(leaf)));
    for (const branch of branches) await put(branch);
  }
}

/** A node's bytes, checked against its name. */
function getNode(store: ObjectStore, patience: Patience, node: Sha256): Promise<Buffer> {
  return fetchPatiently(patience, async () => {
    const bytes = await store.get(nodeKey(node));
    checkHash(node, bytes);
    return bytes;
  });
}

function placeOf({ pack, offset }: RecordLocation): string {
  return `${pack} ${offset}`;
}
