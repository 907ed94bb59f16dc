import type { ObjectStore } from '../objects/object-store.ts';
import type { Sha256 } from '../types/units.ts';
import type { PackId } from './block-encoding.ts';
import { nodeKey, referencesOf } from './manifest-node.ts';
import { packKey } from './pack.ts';
import { recordKey } from './snapshot-record.ts';
import { walkNodes } from './walk-nodes.ts';

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
 * What is needed of a store: everything that can be reached from what lives. It only grows: what lives now can be added to
 * what lived before, and costs only what is new.
 *
 * Most of the work can so be done beside uploads. What decides is the last look, at a time when no upload is under way and
 * none begins: everything that lives then is marked, and nothing has objects that only it knows of; so what is not marked
 * then is garbage, whenever it was listed.
 */
export class Marking {
  readonly #store: ObjectStore;
  readonly #rest: () => Promise<void>;
  readonly #needed = new Set<string>();

  /** @param rest before each piece of work: waits for who has precedence */
  constructor(store: ObjectStore, rest: () => Promise<void> = async () => undefined) {
    this.#store = store;
    this.#rest = rest;
  }

  /** @throws when a node cannot be read: with a mark that is not whole nothing may be removed */
  async add({ roots, packs, snapshotIds }: Live): Promise<void> {
    for (const pack of packs) this.#needed.add(packKey(pack));
    for (const id of snapshotIds) this.#needed.add(recordKey(id));
    const waiting = roots.filter((root) => !this.#needed.has(nodeKey(root)));
    await walkNodes(waiting, (node) => this.#mark(node));
  }

  /** What the store has, and nothing is known to need. */
  async listUnneeded(): Promise<Garbage> {
    const garbage: Garbage = { objects: [], garbageBytes: 0, liveBytes: 0 };
    for (const prefix of ['packs/', 'manifests/', 'snapshots/']) {
      for await (const object of this.#store.list(prefix)) {
        if (this.#needed.has(object.key)) {
          garbage.liveBytes += object.bytes;
        } else {
          garbage.objects.push(object);
          garbage.garbageBytes += object.bytes;
        }
      }
    }
    return garbage;
  }

  /** What is left of a list, now that more may be known to be needed. */
  stillUnneeded({ objects, garbageBytes, liveBytes }: Garbage): Garbage {
    const left: Garbage = { objects: [], garbageBytes: 0, liveBytes: liveBytes + garbageBytes };
    for (const object of objects) {
      if (this.#needed.has(object.key)) continue;
      left.objects.push(object);
      left.garbageBytes += object.bytes;
      left.liveBytes -= object.bytes;
    }
    return left;
  }

  /** @returns the nodes below it. None where it is marked already: then it has been gone through; manifests share most of theirs. */
  async #mark(node: Sha256): Promise<readonly Sha256[]> {
    const key = nodeKey(node);
    if (this.#needed.has(key)) return [];
    this.#needed.add(key);
    await this.#rest();
    const { nodes, packs } = referencesOf(node, await this.#store.get(key));
    for (const pack of packs) this.#needed.add(packKey(pack));
    return nodes;
  }
}

/** Records first, then nodes, then packs: a removal that is cut short leaves nothing that names what is gone. */
export async function removeGarbage(store: ObjectStore, garbage: Garbage): Promise<void> {
  for (const prefix of ['snapshots/', 'manifests/', 'packs/']) {
    const keys = garbage.objects.flatMap(({ key }) => (key.startsWith(prefix) ? [key] : []));
    // Of these none may come behind the ones that follow.
    await store.remove(keys);
  }
}
