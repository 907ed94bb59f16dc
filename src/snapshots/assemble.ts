import type { DataKey } from '../encryption/data-key.ts';
import type { ObjectStore } from '../objects/object-store.ts';
import { type Patience, patiently } from '../objects/patience.ts';
import type { Sha256 } from '../types/units.ts';
import type { BlockLocation, RecordLocation } from './block-encoding.ts';
import { type ChangedLeaves, Manifest, storeManifest } from './manifest.ts';
import { type EncodedNode, encodeLeaf, LEAF_BLOCKS, nodeKey } from './manifest-node.ts';

/**
 * Stores a manifest: a base, and blocks on top of it that are in packs already.
 * @param key of an encrypted snapshot; the base's too
 * @param changes ascending by block; without a location the block is zeroes
 */
export async function assembleManifest(
  store: ObjectStore,
  base: Sha256 | undefined,
  patience: Patience,
  key: DataKey | undefined,
  changes: AsyncIterable<{ block: number; location: RecordLocation | undefined }>,
): Promise<{ root: Sha256; dataBlocks: number }> {
  const manifest = new Manifest(store, base, patience, key);
  const putNode = ({ node, bytes }: EncodedNode): Promise<void> =>
    patiently(patience, () => store.put(nodeKey(node), [bytes]));
  const leaves: ChangedLeaves = new Map();
  let number = -1;
  let leaf = new Map<number, BlockLocation>();
  const finish = async (): Promise<void> => {
    if (number === -1) return;
    if (leaf.size === 0) {
      leaves.set(number, undefined);
      return;
    }
    const encoded = encodeLeaf(leaf, key);
    await putNode(encoded);
    leaves.set(number, { node: encoded.node, blocks: leaf.size });
  };
  for await (const { block, location } of changes) {
    const own = Math.floor(block / LEAF_BLOCKS);
    if (own !== number) {
      await finish();
      number = own;
      leaf = new Map(await manifest.leaf(own));
    }
    if (location === undefined) leaf.delete(block % LEAF_BLOCKS);
    else leaf.set(block % LEAF_BLOCKS, { whole: location, patch: undefined });
  }
  await finish();
  const { root, blocks } = await storeManifest(manifest, leaves, putNode);
  return { root, dataBlocks: blocks };
}
