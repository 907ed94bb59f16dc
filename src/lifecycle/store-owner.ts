import { randomUUID } from 'node:crypto';
import type { Catalog } from '../catalog/catalog.ts';
import { ObjectNotFoundError, type ObjectStore } from '../objects/object-store.ts';

const OWNER_KEY = 'owner.json';

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
