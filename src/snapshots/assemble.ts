import type { DataKey } from '../encryption/data-key.ts';
import type { ObjectStore } from '../objects/object-store.ts';
import { type Patience, patiently } from '../objects/patience.ts';
import { inOrder } from '../types/in-order.ts';
import type { Sha256 } from '../types/units.ts';
import type { RecordLocation } from './block-encoding.ts';
import { type ChangedLeaves, Manifest, NODES_AT_ONCE, storeManifest } from './manifest.ts';
import { type EncodedNode, encodeLeaf, LEAF_BLOCKS, type Leaf, nodeKey } from './manifest-node.ts';

/** Without a location the block is zeroes. */
type Change = { block: number; location: RecordLocation | undefined };
type LeafChanges = { number: number; changes: Change[] };

/**
 * Stores a manifest: a base, and blocks on top of it that are in packs already.
 * @param key of an encrypted snapshot; the base's too
 * @param changes ascending by block
 */
export async function assembleManifest(
  store: ObjectStore,
  base: Sha256 | undefined,
  patience: Patience,
  key: DataKey | undefined,
  changes: AsyncIterable<Change>,
): Promise<{ root: Sha256; dataBlocks: number }> {
  const manifest = new Manifest(store, base, patience, key);
  const putNode = ({ node, bytes }: EncodedNode): Promise<void> =>
    patiently(patience, () => store.put(nodeKey(node), [bytes]));
  const storeLeaf = async ({ number, changes: changed }: LeafChanges) => {
    const leaf: Leaf = new Map(await manifest.leaf(number));
    for (const { block, location } of changed) {
      if (location === undefined) leaf.delete(block % LEAF_BLOCKS);
      else leaf.set(block % LEAF_BLOCKS, { whole: location, patch: undefined });
    }
    if (leaf.size === 0) return { number, child: undefined };
    const encoded = encodeLeaf(leaf, key);
    await putNode(encoded);
    return { number, child: { node: encoded.node, blocks: leaf.size } };
  };
  const leaves: ChangedLeaves = new Map();
  for await (const { number, child } of inOrder(byLeaf(changes), NODES_AT_ONCE, storeLeaf)) leaves.set(number, child);
  const { root, blocks } = await storeManifest(manifest, leaves, putNode);
  return { root, dataBlocks: blocks };
}

/** @param changes ascending by block */
async function* byLeaf(changes: AsyncIterable<Change>): AsyncGenerator<LeafChanges> {
  let gathered: LeafChanges | undefined;
  for await (const change of changes) {
    const number = Math.floor(change.block / LEAF_BLOCKS);
    if (gathered !== undefined && gathered.number !== number) {
      yield gathered;
      gathered = undefined;
    }
    gathered ??= { number, changes: [] };
    gathered.changes.push(change);
  }
  if (gathered !== undefined) yield gathered;
}
