import type { Catalog } from '../catalog/catalog.ts';
import type { SnapshotRow, VolumeRow } from '../catalog/schema.ts';
import type { ObjectStore } from '../objects/object-store.ts';
import { nodeKey } from '../snapshots/manifest-node.ts';
import { asEpoch, type Sha256 } from '../types/units.ts';

/** A volume that came back, and as what. */
export type RevivedVolume = { volumeId: string; sizeGiB: number; fromSnapshot: string | null; asOf: string | null };

const LOST = 'The disk was lost before the snapshot was complete.';

/**
 * Makes a catalog that was saved some time ago fit a machine whose disks are gone: instances are stopped; volumes will
 * be made of their newest completed snapshot, or of what they were made of, or empty; what was under way has failed.
 * The snapshots must have been put right before (see rebuild).
 */
export async function revive(catalog: Catalog, store: ObjectStore): Promise<RevivedVolume[]> {
  const revived: RevivedVolume[] = [];
  const volumes = await catalog.selectFrom('volumes').selectAll().orderBy('volume_id').execute();
  const sources = new Map<string, SnapshotRow | undefined>();
  for (const volume of volumes) sources.set(volume.volume_id, await sourceOf(catalog, store, volume));
  await catalog.transaction().execute(async (transaction) => {
    await transaction
      .updateTable('snapshots')
      .set({ state: 'error', state_message: LOST, boundary: null })
      .where('state', '=', 'pending')
      .execute();
    await transaction.updateTable('snapshot_sets').set({ state: 'error' }).where('state', '=', 'pending').execute();
    await transaction.deleteFrom('direct_uploads').execute();
    await transaction.deleteFrom('direct_blocks').execute();
    await transaction.deleteFrom('snapshot_copies').execute();
    await transaction.deleteFrom('retired_roots').execute();
    await transaction.deleteFrom('stale_records').execute();
    await transaction
      .updateTable('volume_modifications')
      .set({ state: 'failed', message: LOST })
      .where('state', '=', 'modifying')
      .execute();
    await transaction.deleteFrom('replace_root_tasks').where('state', '=', 'in-progress').execute();
    await transaction
      .updateTable('instances')
      .set({ state: 'stopped' })
      .where('state', 'in', ['pending', 'running', 'stopping'])
      .execute();
    await transaction.deleteFrom('volumes').where('state', '=', 'deleting').execute();
    for (const volume of volumes) {
      if (volume.state === 'deleting') continue;
      const source = sources.get(volume.volume_id);
      await transaction
        .updateTable('volumes')
        .set({
          state: 'creating',
          base_boundary: asEpoch(1),
          hydrated: source === undefined ? 1 : 0,
          origin_root: source?.root ?? null,
          origin_key_id: source?.data_key_id ?? null,
          base_root: source !== undefined && source.data_key_id === volume.data_key_id ? source.root : null,
        })
        .where('volume_id', '=', volume.volume_id)
        .execute();
      revived.push({
        volumeId: volume.volume_id,
        sizeGiB: volume.size_gib,
        fromSnapshot: source?.snapshot_id ?? null,
        asOf: source?.started_at ?? null,
      });
    }
  });
  return revived;
}

/** The newest completed snapshot of a volume, or the one that it was made of; undefined where there is none. */
async function sourceOf(catalog: Catalog, store: ObjectStore, volume: VolumeRow): Promise<SnapshotRow | undefined> {
  const own = await catalog
    .selectFrom('snapshots')
    .selectAll()
    .where('volume_id', '=', volume.volume_id)
    .where('state', '=', 'completed')
    .where('root', 'is not', null)
    .where('size_gib', '<=', volume.size_gib)
    .orderBy('started_at', 'desc')
    .limit(1)
    .executeTakeFirst();
  if (own !== undefined) return own;
  if (volume.snapshot_id === null) return undefined;
  const origin = await catalog
    .selectFrom('snapshots')
    .selectAll()
    .where('snapshot_id', '=', volume.snapshot_id)
    .where('state', '=', 'completed')
    .executeTakeFirst();
  return origin !== undefined && origin.root !== null && (await isStored(store, origin.root)) ? origin : undefined;
}

async function isStored(store: ObjectStore, root: Sha256): Promise<boolean> {
  return store.get(nodeKey(root)).then(
    () => true,
    () => false,
  );
}
