import { randomUUID } from 'node:crypto';
import type { Catalog } from '../catalog/catalog.ts';
import { ObjectNotFoundError, type ObjectStore } from '../objects/object-store.ts';
import { hasSnapshotRecord } from '../snapshots/snapshot-record.ts';

const OWNER_KEY = 'owner.json';
/** Where the catalog has its names. */
const NOW = 'server-id';
const BEFORE = 'server-id-before';
/** Some of the latest may be lost; not all of them. */
const LOOKED_FOR = 3;

/** The name by which a server owns its store, and the one it had before: each start takes a new one. */
type Names = { now: string; before: string | undefined };

/**
 * Whose an object store is: two servers that collect in one would take each other's objects for garbage, and each other's
 * saved catalogs for their own.
 *
 * The store has the name of the last start. So of a server and its copy (a machine that was cloned, or went back to what it
 * was some time ago; one that came back after its rebuild elsewhere) one finds a name that is none of its own.
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
   * Says in a store that is nobody's, or this server's, whose it is. To be asked again where it fails: the store may have
   * been away.
   * @throws when it is another server's; once, then that is known
   */
  claim(): Promise<void> {
    if (this.#settled) return Promise.resolve();
    const claiming = (async () => {
      const owner = await this.#read();
      const names = await this.#names();
      // The catalog first: cut off between the two, the next start still knows the name that the store has.
      if (owner === names.now) await this.#put(await this.#rename(names.now));
      else if (owner === undefined || owner === names.before) await this.#put(names.now);
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
      // Of those in the archive alone it has nothing.
      .where('root', 'is not', null)
      .orderBy('completed_at', 'desc')
      .limit(LOOKED_FOR)
      .execute();
    if (latest.length === 0 || (await this.#isOwn(await this.#read()))) return;
    for (const { snapshot_id } of latest) if (await hasSnapshotRecord(this.#store, snapshot_id)) return;
    throw new StrangeStoreError(
      `${this.#store.url} is not the object store of before: it has none of the latest snapshots (${latest[0].snapshot_id}). Name that one with --object-store. If what was in it is lost for good, make this one the server's with 'cleancut rebuild --object-store ${this.#store.url}', and start again`,
    );
  }

  /** The store is this server's from now on, whoever's it was: a server that this one is a copy of, too. */
  async takeOver(): Promise<void> {
    await this.#put(await this.#rename(undefined));
  }

  /** @throws when the store is another server's: nothing in it is to be collected from here, nor overwritten */
  async require(): Promise<void> {
    // Asked for in the first moments of a new store, while its name is still being written.
    await this.#claiming;
    const owner = await this.#read();
    if (await this.#isOwn(owner)) return;
    throw new Error(
      `the object store ${this.#store.url} ${owner === undefined ? 'names no owner' : 'belongs to another server, or to a copy of this one'}: nothing in it is collected from here, and the catalog is not saved there. 'cleancut rebuild' brings in what it holds, and makes it this server's`,
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

  async #put(name: string): Promise<void> {
    await this.#store.put(OWNER_KEY, [Buffer.from(JSON.stringify({ serverId: name }))]);
  }

  async #isOwn(owner: string | undefined): Promise<boolean> {
    const { now, before } = await this.#names();
    return owner === now || (owner !== undefined && owner === before);
  }

  async #names(): Promise<Names> {
    const rows = await this.#catalog.selectFrom('secrets').selectAll().where('name', 'in', [NOW, BEFORE]).execute();
    const named = new Map(rows.map(({ name, value }) => [name, value]));
    return { now: named.get(NOW) ?? (await this.#rename(undefined)), before: named.get(BEFORE) };
  }

  /** @returns the new name */
  async #rename(before: string | undefined): Promise<string> {
    const now = randomUUID();
    await this.#catalog.transaction().execute(async (transaction) => {
      await transaction.deleteFrom('secrets').where('name', 'in', [NOW, BEFORE]).execute();
      await transaction.insertInto('secrets').values({ name: NOW, value: now }).execute();
      if (before !== undefined)
        await transaction.insertInto('secrets').values({ name: BEFORE, value: before }).execute();
    });
    return now;
  }
}

/** Another store than the one that the catalog is of. */
export class StrangeStoreError extends Error {
  override name = 'StrangeStoreError';
}
