import type { DataKey } from '../encryption/data-key.ts';
import type { ObjectReader } from '../objects/object-store.ts';
import type { Patience } from '../objects/patience.ts';
import { inOrder } from '../types/in-order.ts';
import { keepLatest } from '../types/keep-latest.ts';
import type { BlockIndex, Sha256 } from '../types/units.ts';
import type { BlockLocation } from './block-encoding.ts';
import { fetchPatiently } from './fetch.ts';
import {
  type Branch,
  decodeBranch,
  decodeLeaf,
  type EncodedNode,
  encodeBranch,
  LEAF_BLOCKS,
  type Leaf,
  NODE_SLOTS,
  nodeKey,
} from './manifest-node.ts';

const CACHED_LEAVES = 32;
const CACHED_BRANCHES = 64;

/** Of small objects; a store in a network answers in tens of milliseconds, and a large manifest has thousands. */
export const NODES_AT_ONCE = 32;
/** Leaves are read ahead for so many blocks: what one costs, once it is here, is a matter of its blocks. */
export const BLOCKS_AHEAD = 2 * LEAF_BLOCKS;
const BRANCHES_AHEAD = 2;

/** A manifest in the store: which block of a snapshot is where. Reads the nodes that are asked for, and keeps a few. */
export class Manifest {
  readonly #store: ObjectReader;
  readonly #root: Sha256 | undefined;
  readonly #patience: Patience;
  /** Of an encrypted snapshot. */
  readonly key: DataKey | undefined;
  readonly #leaves = new Map<Sha256, Promise<Leaf>>();
  readonly #branches = new Map<Sha256, Promise<Branch>>();

  /**
   * @param root undefined for a volume that never held anything
   * @param key of an encrypted snapshot
   */
  constructor(store: ObjectReader, root: Sha256 | undefined, patience: Patience, key: DataKey | undefined) {
    this.key = key;
    this.#patience = patience;
    this.#store = store;
    this.#root = root;
  }

  /** @returns undefined when the block is zeroes */
  async locate(block: BlockIndex): Promise<BlockLocation | undefined> {
    const leaf = await this.leaf(Math.floor(block / LEAF_BLOCKS));
    return leaf?.get(block % LEAF_BLOCKS);
  }

  /** The leaf of blocks [number·1024, (number+1)·1024). @returns undefined when all of them are zeroes */
  async leaf(number: number): Promise<Leaf | undefined> {
    const node = await this.leafNode(number);
    return node === undefined ? undefined : this.readLeaf(node);
  }

  /** The name of a leaf. @returns undefined where there is none */
  async leafNode(number: number): Promise<Sha256 | undefined> {
    return (await this.branch(Math.floor(number / NODE_SLOTS)))?.get(number % NODE_SLOTS)?.node;
  }

  async branch(number: number): Promise<Branch | undefined> {
    const child = (await this.root()).get(number);
    return child === undefined ? undefined : this.#readBranch(child.node);
  }

  async root(): Promise<Branch> {
    return this.#root === undefined ? new Map() : this.#readBranch(this.#root);
  }

  /** How many blocks hold data. */
  async dataBlocks(): Promise<number> {
    let blocks = 0;
    for (const child of (await this.root()).values()) blocks += child.blocks;
    return blocks;
  }

  /** All leaves that exist, from leaf `from` on, ascending; the next ones are on their way. */
  leaves(from = 0): AsyncGenerator<{ number: number; leaf: Leaf }> {
    return inOrder(
      this.leafNodes(from),
      BLOCKS_AHEAD,
      async ({ number, node }) => ({ number, leaf: await this.readLeaf(node) }),
      weightOfLeaf,
    );
  }

  /** The names of all leaves that exist, from leaf `from` on, ascending. */
  async *leafNodes(from = 0): AsyncGenerator<{ number: number; node: Sha256; blocks: number }> {
    const branches = [...(await this.root())].filter(([upper]) => (upper + 1) * NODE_SLOTS > from);
    const read = async ([upper, { node }]: (typeof branches)[number]) => [upper, await this.#readBranch(node)] as const;
    for await (const [upper, branch] of inOrder(branches, BRANCHES_AHEAD, read)) {
      for (const [lower, { node, blocks }] of branch) {
        const number = upper * NODE_SLOTS + lower;
        if (number >= from) yield { number, node, blocks };
      }
    }
  }

  readLeaf(node: Sha256): Promise<Leaf> {
    return remember(this.#leaves, CACHED_LEAVES, node, () =>
      fetchPatiently(this.#patience, async () => decodeLeaf(node, await this.#store.get(nodeKey(node)), this.key)),
    );
  }

  #readBranch(node: Sha256): Promise<Branch> {
    return remember(this.#branches, CACHED_BRANCHES, node, () =>
      fetchPatiently(this.#patience, async () => decodeBranch(node, await this.#store.get(nodeKey(node)), this.key)),
    );
  }
}

/** What a leaf takes of BLOCKS_AHEAD. */
export function weightOfLeaf({ blocks }: { blocks: number }): number {
  return Math.max(blocks, BLOCKS_AHEAD / NODES_AT_ONCE);
}

/** A leaf that differs from the base's; undefined where nothing but zeroes is left. */
export type ChangedLeaves = Map<number, { node: Sha256; blocks: number } | undefined>;

/**
 * Stores the branches and the root of a manifest that differs from its base in the given leaves (which are stored
 * already), children before parents: whoever can read a root can read all that it names, whenever the power went.
 * @returns the new root, and how many blocks of the whole hold data
 */
export async function storeManifest(
  base: Manifest,
  changed: ChangedLeaves,
  storeNode: (node: EncodedNode) => Promise<void>,
): Promise<{ root: Sha256; blocks: number }> {
  const byBranch = new Map<number, ChangedLeaves>();
  for (const [leaf, child] of changed) {
    const number = Math.floor(leaf / NODE_SLOTS);
    let branch = byBranch.get(number);
    if (branch === undefined) {
      branch = new Map();
      byBranch.set(number, branch);
    }
    branch.set(leaf % NODE_SLOTS, child);
  }
  const root: Branch = new Map(await base.root());
  const storeBranch = async ([number, leaves]: [number, ChangedLeaves]) => {
    const branch: Branch = new Map(await base.branch(number));
    for (const [slot, child] of leaves) {
      if (child === undefined) branch.delete(slot);
      else branch.set(slot, child);
    }
    if (branch.size === 0) return { number, child: undefined };
    const encoded = encodeBranch(branch, base.key);
    await storeNode(encoded);
    return { number, child: { node: encoded.node, blocks: sum(branch) } };
  };
  for await (const { number, child } of inOrder(byBranch, NODES_AT_ONCE, storeBranch)) {
    if (child === undefined) root.delete(number);
    else root.set(number, child);
  }
  const encoded = encodeBranch(root, base.key);
  await storeNode(encoded);
  return { root: encoded.node, blocks: sum(root) };
}

function sum(branch: Branch): number {
  let blocks = 0;
  for (const child of branch.values()) blocks += child.blocks;
  return blocks;
}

/** Keeps the results asked for last; a failure is not kept. */
function remember<Key, Value>(
  cache: Map<Key, Promise<Value>>,
  most: number,
  key: Key,
  make: () => Promise<Value>,
): Promise<Value> {
  const found = cache.get(key);
  const made = found ?? make();
  keepLatest(cache, most, key, made);
  if (found === undefined) made.catch(() => cache.delete(key));
  return made;
}
