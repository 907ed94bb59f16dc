import type { Catalog } from '../catalog/catalog.ts';
import type { PackId } from '../snapshots/block-encoding.ts';
import type { SnapshotId } from '../types/ids.ts';
import type { LifecycleOptions } from './options.ts';

/** They take the server's thread some ten milliseconds. */
const ROWS_AT_ONCE = 4_000;

/**
 * Where the blocks lie of snapshots that are written through the EBS direct APIs: a row for each, millions for a large one.
 * To read or remove them all at once is seconds in which nobody else is answered.
 */
export class WrittenBlocks {
  readonly #catalog: Catalog;
  readonly #rest: () => Promise<void>;

  constructor({ catalog, dataPlane }: Pick<LifecycleOptions, 'catalog' | 'dataPlane'>) {
    this.#catalog = catalog;
    this.#rest = async () => {
      await new Promise(setImmediate);
      await dataPlane.afterHold();
    };
  }

  /** The packs that have blocks of snapshots which are still being written: only the catalog knows of them. */
  async packs(): Promise<Set<PackId>> {
    const packs = new Set<PackId>();
    for (const id of await this.#goingOn()) {
      for (let after: number | undefined = -1; after !== undefined; ) {
        const rows: { block_index: number; pack: string | null }[] = await this.#catalog
          .selectFrom('direct_blocks')
          .select(['block_index', 'pack'])
          .where('snapshot_id', '=', id)
          .where('block_index', '>', after)
          .orderBy('block_index')
          .limit(ROWS_AT_ONCE)
          .execute();
        for (const { pack } of rows) if (pack !== null) packs.add(pack as PackId);
        after = rows.at(-1)?.block_index;
        await this.#rest();
      }
    }
    return packs;
  }

  /** The manifests that such snapshots are written on top of. */
  async parents() {
    return this.#uploads().select('parent_root').where('parent_root', 'is not', null).execute();
  }

  /** Removes what is left of those that have ended: completed, given up or deleted, they never go on. */
  async sweep(): Promise<void> {
    for (let id = await this.#next(''); id !== undefined; id = await this.#next(id)) {
      // Asked when its blocks have been seen: one that has begun since the sweep did goes on.
      if ((await this.#goingOn()).includes(id)) continue;
      while (await this.#removeSome(id)) await this.#rest();
    }
  }

  #uploads() {
    return this.#catalog
      .selectFrom('direct_uploads')
      .innerJoin('snapshots', 'snapshots.snapshot_id', 'direct_uploads.snapshot_id')
      .where('snapshots.state', '=', 'pending');
  }

  async #goingOn(): Promise<SnapshotId[]> {
    const rows = await this.#uploads().select('snapshots.snapshot_id').execute();
    return rows.map((row) => row.snapshot_id);
  }

  /** The next snapshot that has blocks here. (To ask for all of them at once, SQLite would go through all blocks.) */
  async #next(after: SnapshotId | ''): Promise<SnapshotId | undefined> {
    const row = await this.#catalog
      .selectFrom('direct_blocks')
      .select('snapshot_id')
      .where('snapshot_id', '>', after as SnapshotId)
      .orderBy('snapshot_id')
      .limit(1)
      .executeTakeFirst();
    return row?.snapshot_id;
  }

  /** @returns false when nothing was left */
  async #removeSome(id: SnapshotId): Promise<boolean> {
    const { numDeletedRows } = await this.#catalog
      .deleteFrom('direct_blocks')
      .where('snapshot_id', '=', id)
      .where('block_index', 'in', (some) =>
        some
          .selectFrom('direct_blocks')
          .select('block_index')
          .where('snapshot_id', '=', id)
          .orderBy('block_index')
          .limit(ROWS_AT_ONCE),
      )
      .executeTakeFirst();
    return numDeletedRows > 0n;
  }
}
