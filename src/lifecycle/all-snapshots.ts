import type { Catalog } from '../catalog/catalog.ts';
import type { SnapshotRow } from '../catalog/schema.ts';
import type { SnapshotId } from '../types/ids.ts';

/** They take the server's thread some five milliseconds. */
const ROWS_AT_ONCE = 4_000;

type SnapshotColumns = Pick<SnapshotRow, 'snapshot_id' | 'volume_id' | 'started_at' | 'state' | 'root' | 'data_key_id'>;

/**
 * All snapshots there are, by their ids, some at a time: to ask for a hundred thousand at once is a tenth of a second in which
 * nobody else is answered, and the writes of a cut are held. One that is made meanwhile may be left out, or not.
 * @param rest lets others have their turn
 */
export async function* allSnapshots(catalog: Catalog, rest: () => Promise<void>): AsyncGenerator<SnapshotColumns> {
  for (let after: SnapshotId | '' = ''; ; ) {
    const rows: SnapshotColumns[] = await catalog
      .selectFrom('snapshots')
      .select(['snapshot_id', 'volume_id', 'started_at', 'state', 'root', 'data_key_id'])
      .where('snapshot_id', '>', after as SnapshotId)
      .orderBy('snapshot_id')
      .limit(ROWS_AT_ONCE)
      .execute();
    yield* rows;
    const last = rows.at(-1);
    if (last === undefined) return;
    after = last.snapshot_id;
    await new Promise(setImmediate);
    await rest();
  }
}
