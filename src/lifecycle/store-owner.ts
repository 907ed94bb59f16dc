import { randomUUID } from 'node:crypto';
import type { Catalog } from '../catalog/catalog.ts';
import { ObjectNotFoundError, type ObjectStore } from '../objects/object-store.ts';
import { hasSnapshotRecord } from '../snapshots/snapshot-record.ts';

const OWNER_KEY = 'owner.json';
/** Some of the latest may be lost; not all of them. */
const LOOKED_FOR = 3;

/**
 * Whose an object store is: two servers that collect in one would take each other's objects for garbage, and each other's
 * saved catalogs for their own.
 */
export class StoreOwner {
  readonly #catalog: Catalog;
  readonly #store: ObjectStore;
  #claiming: Promise<void> | undefined;
  #settled = false;

  constructor(catalog: Catalog, store: ObjectStore) {
    this.#catalog = catalog;
    this.#store = store;
  }

  /**
   * Says in a store that is nobody's whose it is. To be asked again where it fails: the store may have been away.
   * @throws when it is another server's; once, then that is known
   */
  claim(): Promise<void> {
    if (this.#settled) return Promise.resolve();
    const claiming = (async () => {
      if ((await this.#read()) === undefined) await this.takeOver();
      this.#settled = true;
    })();
    this.#claiming = claiming.catch(() => undefined);
    return claiming.then(() => this.require());
  }

  /**
   * A slip in a flag must not have snapshots stored where nobody looks for them later.
   * @throws StrangeStoreError when the catalog has snapshots, the store has none of the latest, and is not this server's
   */
  async refuseStranger(): Promise<void> {
    const latest = await this.#catalog
      .selectFrom('snapshots')
      .select('snapshot_id')
      .where('state', '=', 'completed')
      .orderBy('completed_at', 'desc')
      .limit(LOOKED_FOR)
      .execute();
    if (latest.length === 0 || (await this.#read()) === (await this.#serverId())) return;
    for (const { snapshot_id } of latest) if (await hasSnapshotRecord(this.#store, snapshot_id)) return;
    throw new StrangeStoreError(
      `${this.#store.url} is not the object store of before: it has none of the latest snapshots (${latest[0].snapshot_id}). Name that one with --object-store. If what was in it is lost for good, make this one the server's with 'cleancut rebuild --object-store ${this.#store.url}', and start again`,
    );
  }

  /** The store is this server's from now on, whoever's it was. */
  async takeOver(): Promise<void> {
    await this.#store.put(OWNER_KEY, [Buffer.from(JSON.stringify({ serverId: await this.#serverId() }))]);
  }

  /** @throws when the store is another server's: nothing in it is to be collected from here, nor overwritten */
  async require(): Promise<void> {
    // Asked for in the first moments of a new store, while its name is still being written.
    await this.#claiming;
    const owner = await this.#read();
    if (owner === (await this.#serverId())) return;
    throw new Error(
      `the object store ${this.#store.url} ${owner === undefined ? 'names no owner' : 'belongs to another server'}: nothing in it is collected from here, and the catalog is not saved there. 'cleancut rebuild' brings in what it holds, and makes it this server's`,
    );
  }

  async #read(): Promise<string | undefined> {
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
}

/** Another store than the one that the catalog is of. */
export class StrangeStoreError extends Error {
  override name = 'StrangeStoreError';
}
