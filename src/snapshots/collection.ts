import type { ObjectStore } from '../objects/object-store.ts';
import type { Sha256 } from '../types/units.ts';
import type { PackId } from './block-encoding.ts';
import { nodeKey, referencesOf } from './manifest-node.ts';
import { packKey } from './pack.ts';
import { recordKey } from './snapshot-record.ts';

/** What must stay. */
export type Live = {
  /** Roots of the manifests of snapshots, and of the bases and origins of volumes. */
  roots: readonly Sha256[];
  /** Packs that no manifest names yet. */
  packs: readonly PackId[];
  /** Snapshots that exist, complete or not: their records stay. */
  snapshotIds: readonly string[];
};

export type Garbage = { objects: { key: string; bytes: number }[]; garbageBytes: number; liveBytes: number };

/**
 * Finds the objects that nothing needs any more: everything reachable from the roots is marked, the rest is garbage.
 * The caller sees to it that no upload is under way, and none begins, until what is found has been removed.
 * @throws when a node cannot be read: with a mark that is not whole nothing may be removed
 */
export async function findGarbage(store: ObjectStore, live: Live): Promise<Garbage> {
  const keep = new Set<string>([...live.packs.map(packKey), ...live.snapshotIds.map(recordKey)]);
  for (const root of live.roots) await markNode(store, root, keep);
  const garbage: Garbage = { objects: [], garbageBytes: 0, liveBytes: 0 };
  for (const prefix of ['packs/', 'manifests/', 'snapshots/']) {
    for await (const object of store.list(prefix)) {
      if (keep.has(object.key)) {
        garbage.liveBytes += object.bytes;
      } else {
        garbage.objects.push(object);
        garbage.garbageBytes += object.bytes;
      }
    }
  }
  return garbage;
}

/** Records first, then nodes, then packs: a removal that is cut short leaves nothing that names what is gone. */
export async function removeGarbage(store: ObjectStore, garbage: Garbage): Promise<void> {
  for (const prefix of ['snapshots/', 'manifests/', 'packs/']) {
    for (const { key } of garbage.objects) if (key.startsWith(prefix)) await store.remove(key);
  }
}

/** Marks a node and all below it. One that is marked already has been gone through: manifests share most of theirs. */
async function markNode(store: ObjectStore, node: Sha256, keep: Set<string>): Promise<void> {
  if (keep.has(nodeKey(node))) return;
  keep.add(nodeKey(node));
  const { nodes, packs } = referencesOf(node, await store.get(nodeKey(node)));
  for (const pack of packs) keep.add(packKey(pack));
  for (const child of nodes) await markNode(store, child, keep);
}
