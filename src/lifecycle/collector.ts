import { randomUUID } from 'node:crypto';
import type { Catalog } from '../catalog/catalog.ts';
import { ObjectNotFoundError, type ObjectStore } from '../objects/object-store.ts';
import type { PackId } from '../snapshots/block-encoding.ts';
import { findGarbage, type Live, removeGarbage } from '../snapshots/collection.ts';
import type { Sha256 } from '../types/units.ts';
import type { UploadGate } from './upload-gate.ts';

const OWNER_KEY = 'owner.json';

export type Collected = {
  /** Why nothing was looked at; try again later. */
  busy: string | undefined;
  removed: boolean;
  objects: number;
  garbageBytes: number;
  liveBytes: number;
};

/** Frees what deleted snapshots and broken uploads have left in the object store. */
export class Collector {
  readonly #catalog: Catalog;
  readonly #store: ObjectStore;
  readonly #gate: UploadGate;

  constructor(catalog: Catalog, store: ObjectStore, gate: UploadGate) {
    this.#catalog = catalog;
    this.#store = store;
    this.#gate = gate;
  }

  /**
   * Looks for garbage, and removes it unless it is only to be shown.
   * @throws when the store belongs to another server, or what is live cannot all be read: then nothing is removed
   */
  async collect(remove: boolean): Promise<Collected> {
    const nothing = { removed: false, objects: 0, garbageBytes: 0, liveBytes: 0 };
    const collected = await this.#gate.collect(async (): Promise<Collected> => {
      // An upload that is to go on after a restart has objects in the store that only its journal names.
      const owed = await this.#owed();
      if (owed !== undefined) return { busy: `${owed} is not stored yet`, ...nothing };
      await this.#requireOwner();
      const garbage = await findGarbage(this.#store, await this.#live());
      if (remove) await removeGarbage(this.#store, garbage);
      const { objects, garbageBytes, liveBytes } = garbage;
      return { busy: undefined, removed: remove, objects: objects.length, garbageBytes, liveBytes };
    });
    return collected ?? { busy: 'an upload is under way', ...nothing };
  }

  /** Says in the store whose it is, so that no other server takes its objects for garbage. */
  async claim(): Promise<void> {
    if ((await this.#readOwner()) === undefined) await this.takeOver();
  }

  /** The store is this server's from now on, whoever's it was. */
  async takeOver(): Promise<void> {
    await this.#store.put(OWNER_KEY, [Buffer.from(JSON.stringify({ serverId: await this.#serverId() }))]);
  }

  async #requireOwner(): Promise<void> {
    const owner = await this.#readOwner();
    if (owner === (await this.#serverId())) return;
    throw new Error(
      `the object store ${this.#store.url} ${owner === undefined ? 'names no owner' : 'belongs to another server'}: nothing in it is collected from here`,
    );
  }

  async #readOwner(): Promise<string | undefined> {
    try {
      const owner = JSON.parse((await this.#store.get(OWNER_KEY)).toString('utf8')) as { serverId?: string };
      return owner.serverId;
    } catch (error) {
      if (error instanceof ObjectNotFoundError) return undefined;
      throw error;
    }
  }

  async #serverId(): Promise<string> {
    await this.#catalog
      .insertInto('secrets')
      .values({ name: 'server-id', value: randomUUID() })
      .onConflict((conflict) => conflict.doNothing())
      .execute();
    const row = await this.#catalog
      .selectFrom('secrets')
      .select('value')
      .where('name', '=', 'server-id')
      .executeTakeFirstOrThrow();
    return row.value;
  }

  async #owed(): Promise<string | undefined> {
    const row = await this.#catalog
      .selectFrom('snapshots')
      .select('snapshot_id')
      .where('state', '=', 'pending')
      .where('root', 'is', null)
      .where('snapshot_id', 'not in', (select) =>
        select.selectFrom('direct_uploads').select('direct_uploads.snapshot_id'),
      )
      .executeTakeFirst();
    return row?.snapshot_id;
  }

  async #live(): Promise<Live> {
    const snapshots = await this.#catalog.selectFrom('snapshots').select(['snapshot_id', 'root']).execute();
    const volumes = await this.#catalog
      .selectFrom('volumes')
      .select(['base_root', 'origin_root', 'hydrated'])
      .execute();
    const copies = await this.#catalog.selectFrom('snapshot_copies').select('source_root').execute();
    const uploads = await this.#catalog.selectFrom('direct_uploads').select('parent_root').execute();
    const blocks = await this.#catalog
      .selectFrom('direct_blocks')
      .select('pack')
      .where('pack', 'is not', null)
      .execute();
    const roots = new Set<Sha256>();
    for (const { root } of snapshots) if (root !== null) roots.add(root);
    for (const { base_root, origin_root, hydrated } of volumes) {
      if (base_root !== null) roots.add(base_root);
      if (origin_root !== null && hydrated === 0) roots.add(origin_root);
    }
    for (const { source_root } of copies) roots.add(source_root);
    for (const { parent_root } of uploads) if (parent_root !== null) roots.add(parent_root);
    return {
      roots: [...roots],
      packs: blocks.flatMap(({ pack }) => (pack === null ? [] : [pack as PackId])),
      snapshotIds: snapshots.map((snapshot) => snapshot.snapshot_id),
    };
  }
}
