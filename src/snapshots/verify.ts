import type { DataKey } from '../encryption/data-key.ts';
import type { ObjectStore } from '../objects/object-store.ts';
import type { Patience } from '../objects/patience.ts';
import type { Sha256 } from '../types/units.ts';
import type { BlockLocation } from './block-encoding.ts';
import { decodeBlock } from './block-encoding.ts';
import { fetchPatiently } from './fetch.ts';
import { Manifest } from './manifest.ts';
import { LEAF_BLOCKS } from './manifest-node.ts';
import { packKey } from './pack.ts';

/** A snapshot to be checked, with the key of an encrypted one. */
export type VerifiedSnapshot = { snapshotId: string; root: Sha256; key: DataKey | undefined };

/** Something in the store that is not as it was put there, and the snapshots that need it. */
export type Damage = { object: string; what: string; affected: { snapshotId: string; blocks: number[] }[] };

export type Verified = { snapshots: number; blocks: number; bytes: number; damage: Damage[] };

/**
 * Reads everything that snapshots name, and checks it against its hashes. What several share is read once.
 * @param onProgress told of the stored bytes that were read so far; the next are read when it is done
 */
export async function verifySnapshots(
  store: ObjectStore,
  snapshots: readonly VerifiedSnapshot[],
  patience: Patience,
  onProgress: (bytes: number) => void | Promise<void>,
  signal?: AbortSignal,
): Promise<Verified> {
  const checked = new Map<string, string | undefined>();
  const damage = new Map<string, Damage>();
  const verified: Verified = { snapshots: snapshots.length, blocks: 0, bytes: 0, damage: [] };
  const note = (object: string, what: string, snapshotId: string, block: number | undefined): void => {
    const found = damage.get(`${object} ${what}`) ?? { object, what, affected: [] };
    damage.set(`${object} ${what}`, found);
    let affected = found.affected.find((each) => each.snapshotId === snapshotId);
    if (affected === undefined) {
      affected = { snapshotId, blocks: [] };
      found.affected.push(affected);
    }
    if (block !== undefined) affected.blocks.push(block);
  };
  for (const { snapshotId, root, key: dataKey } of snapshots) {
    const manifest = new Manifest(store, root, patience, dataKey);
    try {
      for await (const { number, leaf } of manifest.leaves()) {
        for (const [slot, location] of leaf) {
          const key = `${location.pack} ${location.offset}`;
          if (!checked.has(key)) {
            signal?.throwIfAborted();
            checked.set(key, await checkBlock(store, location, patience, dataKey));
            verified.blocks += 1;
            verified.bytes += location.length;
            await onProgress(verified.bytes);
          }
          const wrong = checked.get(key);
          if (wrong !== undefined) note(packKey(location.pack), wrong, snapshotId, number * LEAF_BLOCKS + slot);
        }
      }
    } catch (error) {
      signal?.throwIfAborted();
      // The rest of this snapshot's manifest cannot be reached.
      note(`the manifest of ${snapshotId}`, (error as Error).message, snapshotId, undefined);
    }
  }
  verified.damage = [...damage.values()];
  return verified;
}

/** @returns what is wrong with a block; undefined where nothing is */
async function checkBlock(
  store: ObjectStore,
  location: BlockLocation,
  patience: Patience,
  key: DataKey | undefined,
): Promise<string | undefined> {
  const { pack, offset, length } = location;
  try {
    await fetchPatiently(patience, async () => {
      const stored = await store.getRange(packKey(pack), offset, length);
      await decodeBlock(stored, location, key, `the block of ${length} bytes at ${offset}`);
    });
    return undefined;
  } catch (error) {
    return (error as Error).message;
  }
}
