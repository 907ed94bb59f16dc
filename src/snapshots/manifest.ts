import type { DataKey } from '../encryption/data-key.ts';
import type { ObjectStore } from '../objects/object-store.ts';
import type { Patience } from '../objects/patience.ts';
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

/** A manifest in the store: which block of a snapshot is where. Reads the nodes that are asked for, and keeps a few. */
export class Manifest {
  readonly #store: ObjectStore;
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
  constructor(store: ObjectStore, root: Sha256 | undefined, patience: Patience, key: DataKey | undefined) {
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
    const child = (await this.branch(Math.floor(number / NODE_SLOTS)))?.get(number % NODE_SLOTS);
    return child === undefined ? undefined : this.#readLeaf(child.node);
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

  /** All leaves that exist, from leaf `from` on, ascending. */
  async *leaves(from = 0): AsyncGenerator<{ number: number; leaf: Leaf }> {
    for (const [upper, child] of await this.root()) {
      if ((upper + 1) * NODE_SLOTS <= from) continue;
      for (const [lower, grandchild] of await this.#readBranch(child.node)) {
        const number = upper * NODE_SLOTS + lower;
        if (number >= from) yield { number, leaf: await this.#readLeaf(grandchild.node) };
      }
    }
  }

  #readLeaf(node: Sha256): Promise<Leaf> {
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
  for (const [number, leaves] of byBranch) {
    const branch: Branch = new Map(await base.branch(number));
    for (const [slot, child] of leaves) {
      if (child === undefined) branch.delete(slot);
      else branch.set(slot, child);
    }
    if (branch.size === 0) {
      root.delete(number);
      continue;
    }
    const encoded = encodeBranch(branch, base.key);
    await storeNode(encoded);
    root.set(number, { node: encoded.node, blocks: sum(branch) });
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
