import { type BlockLocation, isSameBlock } from './block-encoding.ts';
import type { Manifest } from './manifest.ts';
import { LEAF_BLOCKS, NODE_SLOTS } from './manifest-node.ts';

export type ChangedBlock = { block: number; first: BlockLocation | undefined; second: BlockLocation | undefined };

/** The blocks in which two manifests differ, ascending from `from`. What they share is not read. */
export async function* changedBlocks(first: Manifest, second: Manifest, from: number): AsyncGenerator<ChangedBlock> {
  const [one, two] = [await first.root(), await second.root()];
  for (const upper of slots(one, two)) {
    if ((upper + 1) * NODE_SLOTS * LEAF_BLOCKS <= from || one.get(upper)?.node === two.get(upper)?.node) continue;
    const [left, right] = [await first.branch(upper), await second.branch(upper)];
    for (const lower of slots(left, right)) {
      const number = upper * NODE_SLOTS + lower;
      if ((number + 1) * LEAF_BLOCKS <= from || left?.get(lower)?.node === right?.get(lower)?.node) continue;
      const [before, after] = [await first.leaf(number), await second.leaf(number)];
      for (const slot of slots(before, after)) {
        const block = number * LEAF_BLOCKS + slot;
        const change = { block, first: before?.get(slot), second: after?.get(slot) };
        if (block >= from && !isSameBlock(change.first, change.second)) yield change;
      }
    }
  }
}

function slots(a: ReadonlyMap<number, unknown> | undefined, b: ReadonlyMap<number, unknown> | undefined): number[] {
  return [...new Set([...(a?.keys() ?? []), ...(b?.keys() ?? [])])].sort((x, y) => x - y);
}
