import { existsSync } from 'node:fs';
import { type Catalog, openCatalog } from '../catalog/catalog.ts';
import type { SnapshotRow } from '../catalog/schema.ts';
import { putTags, removeTags } from '../catalog/tags.ts';
import { Keyring } from '../keys/keyring.ts';
import { StoreOwner } from '../lifecycle/store-owner.ts';
import type { ObjectStore } from '../objects/object-store.ts';
import { listSnapshotRecords, type SnapshotRecord } from '../snapshots/snapshot-record.ts';
import { knownId, parseAccountId } from '../types/ids.ts';
import type { Sha256 } from '../types/units.ts';
import { NodeDisk } from '../volumes/node-disk.ts';
import { fetchCatalog } from './catalog-backup.ts';
import { dataPaths, takeDataDirectory } from './data-directory.ts';
import { type RevivedVolume, revive } from './revive.ts';

export type Rebuilt = {
  snapshots: number;
  sets: number;
  known: number;
  unreadable: { key: string; why: string }[];
  /** The copy of the catalog that was found in the bucket, and the volumes that came back by it. */
  catalog: string | null;
  volumes: RevivedVolume[];
};

/**
 * Brings back, into a data directory's catalog, every completed snapshot that the bucket holds: with its tags, its set,
 * its owner, and with whom it is shared. Those that the catalog has are left as they are, so it may be done again. The
 * bucket belongs to this directory's server from then on.
 *
 * Where the directory has no catalog yet, and the bucket has a copy of one, that is where it begins: users, instances and
 * volumes' definitions come back as well (see revive).
 * @param snapshotsOnly leaves the copy of the catalog where it is
 * @throws when a server is using the data directory
 */
export async function rebuild(
  dataDir: string,
  store: ObjectStore,
  snapshotsOnly: boolean,
  onRecord: () => void,
): Promise<Rebuilt> {
  const lock = takeDataDirectory(dataDir);
  const path = dataPaths(dataDir).catalog;
  const saved = snapshotsOnly || existsSync(path) ? undefined : await fetchCatalog(path, store);
  const catalog = await openCatalog(path);
  const rebuilt: Rebuilt = { snapshots: 0, sets: 0, known: 0, unreadable: [], catalog: saved ?? null, volumes: [] };
  const recorded = new Set<string>();
  try {
    for await (const found of listSnapshotRecords(store)) {
      onRecord();
      if (found.record === undefined) {
        rebuilt.unreadable.push({ key: found.key, why: found.why });
        continue;
      }
      const { record } = found;
      const row = rowOf(record);
      recorded.add(row.snapshot_id);
      const known = await catalog
        .selectFrom('snapshots')
        .select('state')
        .where('snapshot_id', '=', row.snapshot_id)
        .executeTakeFirst();
      if (known?.state === 'completed') {
        // Its manifest may have been written anew since the catalog was saved; the old one may be gone.
        const { root } = row;
        if (saved !== undefined) {
          await catalog.updateTable('snapshots').set({ root }).where('snapshot_id', '=', row.snapshot_id).execute();
        }
        rebuilt.known += 1;
        continue;
      }
      if (known !== undefined) {
        // It was completed after the catalog was saved.
        const { root, data_blocks, completed_at } = row;
        await catalog
          .updateTable('snapshots')
          .set({ state: 'completed', root, data_blocks, completed_at, boundary: null, state_message: '' })
          .where('snapshot_id', '=', row.snapshot_id)
          .execute();
        await catalog
          .updateTable('snapshot_sets')
          .set({ state: 'completed' })
          .where('set_id', '=', row.set_id)
          .execute();
        rebuilt.snapshots += 1;
        continue;
      }
      // One snapshot in one step: a rebuild that is cut short is taken up by the next.
      await catalog.transaction().execute(async (transaction) => {
        const { account_id, region, set_id, started_at, description, snapshot_id } = row;
        const set = await transaction
          .insertInto('snapshot_sets')
          .values({
            set_id,
            account_id,
            region,
            instance_id: record.instanceId === null ? null : knownId('i', record.instanceId),
            description,
            started_at,
            hold_milliseconds: 0,
            state: 'completed',
          })
          .onConflict((conflict) => conflict.doNothing())
          .executeTakeFirst();
        if (Number(set.numInsertedOrUpdatedRows ?? 0) > 0) rebuilt.sets += 1;
        if (record.encryption !== undefined) {
          const { dataKeyId, kmsKeyArn, wrapped } = record.encryption;
          await transaction
            .insertInto('data_keys')
            .values({ data_key_id: dataKeyId, kms_key_arn: kmsKeyArn, wrapped })
            .onConflict((conflict) => conflict.doNothing())
            .execute();
        }
        await transaction.insertInto('snapshots').values(row).execute();
        const tags = new Map(record.tags.map(({ key, value }) => [key, value]));
        await putTags(
          transaction,
          { resourceId: snapshot_id, resourceType: 'snapshot', accountId: account_id, region },
          tags,
        );
        for (const grantee of record.sharedWith) {
          await transaction.insertInto('snapshot_permissions').values({ snapshot_id, grantee }).execute();
        }
      });
      rebuilt.snapshots += 1;
    }
    if (saved !== undefined) {
      await forgetDeleted(catalog, recorded, rebuilt.unreadable.length > 0);
      rebuilt.volumes = await revive(catalog, store);
    }
    // The keys of encrypted snapshots; of use only with the passphrase or key file that protects them.
    await Keyring.fetch(new NodeDisk(), dataPaths(dataDir).keyring, store);
    await new StoreOwner(catalog, store).takeOver();
    return rebuilt;
  } finally {
    await catalog.destroy();
    lock.close();
  }
}

/** Snapshots that the saved catalog has and the bucket no more: deleted since. */
async function forgetDeleted(catalog: Catalog, recorded: ReadonlySet<string>, someUnreadable: boolean): Promise<void> {
  // A record that cannot be read may be any of them.
  if (someUnreadable) return;
  const completed = await catalog
    .selectFrom('snapshots')
    .select('snapshot_id')
    .where('state', '=', 'completed')
    .execute();
  for (const { snapshot_id } of completed) {
    if (recorded.has(snapshot_id)) continue;
    await removeTags(catalog, snapshot_id);
    await catalog.deleteFrom('image_devices').where('snapshot_id', '=', snapshot_id).execute();
    await catalog.deleteFrom('snapshots').where('snapshot_id', '=', snapshot_id).execute();
  }
}

function rowOf(record: SnapshotRecord): SnapshotRow {
  const accountId = parseAccountId(record.ownerId);
  if (accountId === undefined) throw new Error(`${record.snapshotId}: '${record.ownerId}' is no account id`);
  return {
    snapshot_id: knownId('snap', record.snapshotId),
    account_id: accountId,
    region: record.region,
    set_id: knownId('set', record.setId),
    volume_id: knownId('vol', record.volumeId),
    parent_snapshot_id: record.parentSnapshotId === null ? null : knownId('snap', record.parentSnapshotId),
    device_name: record.deviceName,
    is_root: record.isRoot ? 1 : 0,
    volume_type: record.volumeType,
    size_gib: record.volumeSizeGiB,
    description: record.description,
    started_at: record.startTime,
    completed_at: record.completionTime,
    state: 'completed',
    state_message: '',
    boundary: null,
    root: record.root as Sha256,
    data_blocks: record.dataBlocks,
    stored_bytes: 0,
    data_key_id: record.encryption?.dataKeyId ?? null,
    kms_key_arn: record.encryption?.kmsKeyArn ?? null,
  };
}
