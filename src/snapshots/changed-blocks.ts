import { inOrder } from '../types/in-order.ts';
import { type BlockLocation, isSameBlock } from './block-encoding.ts';
import { BLOCKS_AHEAD, type Manifest, weightOfLeaf } from './manifest.ts';
import { LEAF_BLOCKS, NODE_SLOTS } from './manifest-node.ts';

export type ChangedBlock = { block: number; first: BlockLocation | undefined; second: BlockLocation | undefined };

/** The blocks in which two manifests differ, ascending from `from`. What they share is not read. */
export async function* changedBlocks(first: Manifest, second: Manifest, from: number): AsyncGenerator<ChangedBlock> {
  const leaves = changedLeaves(first, second, from);
  const read = async ({ number }: { number: number }) => {
    const [before, after] = await Promise.all([first.leaf(number), second.leaf(number)]);
    return { number, before, after };
  };
  for await (const { number, before, after } of inOrder(leaves, BLOCKS_AHEAD, read, weightOfLeaf)) {
    for (const slot of slots(before, after)) {
      const block = number * LEAF_BLOCKS + slot;
      const change = { block, first: before?.get(slot), second: after?.get(slot) };
      if (block >= from && !isSameBlock(change.first, change.second)) yield change;
    }
  }
}

/** The leaves in which two manifests differ, ascending from that of block `from`, with the blocks that they have in both. */
async function* changedLeaves(
  first: Manifest,
  second: Manifest,
  from: number,
): AsyncGenerator<{ number: number; blocks: number }> {
  const [one, two] = await Promise.all([first.root(), second.root()]);
  for (const upper of slots(one, two)) {
    if ((upper + 1) * NODE_SLOTS * LEAF_BLOCKS <= from || one.get(upper)?.node === two.get(upper)?.node) continue;
    const [left, right] = await Promise.all([first.branch(upper), second.branch(upper)]);
    for (const lower of slots(left, right)) {
      const number = upper * NODE_SLOTS + lower;
      const [before, after] = [left?.get(lower), right?.get(lower)];
      if ((number + 1) * LEAF_BLOCKS <= from || before?.node === after?.node) continue;
      yield { number, blocks: (before?.blocks ?? 0) + (after?.blocks ?? 0) };
    }
  }
}

function slots(a: ReadonlyMap<number, unknown> | undefined, b: ReadonlyMap<number, unknown> | undefined): number[] {
  return [...new Set([...(a?.keys() ?? []), ...(b?.keys() ?? [])])].sort((x, y) => x - y);
}
