import { existsSync } from 'node:fs';
import { folderOf } from '../objects/folder-store.ts';
import { ObjectNotFoundError } from '../objects/object-store.ts';
import { openObjectStore } from '../objects/open-store.ts';
import { realPatience } from '../objects/patience.ts';
import { dataPaths } from '../server/data-directory.ts';
import { rebuild as rebuildCatalog } from '../server/rebuild.ts';
import { getSnapshotRecord, listSnapshotRecords, type SnapshotRecord } from '../snapshots/snapshot-record.ts';
import {
  damagedFor,
  RECORDS_ALONE,
  type Verified,
  type VerifiedSnapshot,
  verifySnapshots,
} from '../snapshots/verify.ts';
import { formatBytes, type Sha256 } from '../types/units.ts';
import { chosenDataDir, connectToServer, runningServer } from './connection.ts';
import { chosenStore, type StoreFlags } from './images.ts';
import { SnapshotKeys } from './keys.ts';
import { archiveFolderOf, namedSnapshot } from './named-snapshot.ts';
import { ProgressBar, print } from './output.ts';

const PATIENCE_MILLISECONDS = 30_000;

/** Reads and checks everything that snapshots name; exit code 1 when anything is not as it was stored. */
export async function verify(ids: string[], flags: StoreFlags & { set?: string }): Promise<void> {
  const store = await chosenStore(flags);
  const records: SnapshotRecord[] = [];
  const unreadable: { object: string; what: string }[] = [];
  for (const id of ids) records.push(await namedSnapshot(store, id));
  if (ids.length === 0) {
    for await (const found of listSnapshotRecords(store)) {
      if (found.record === undefined) unreadable.push({ object: found.key, what: found.why });
      else if (flags.set === undefined || found.record.setId === flags.set) records.push(found.record);
    }
  }
  if (records.length === 0 && unreadable.length === 0) throw new Error(`there is no such snapshot in ${store.url}`);
  const keys = new SnapshotKeys(flags, store);
  /** By the folder that they are in, where the store is an archive. */
  const byFolder = new Map<string | undefined, VerifiedSnapshot[]>();
  for (const record of records) {
    const { snapshotId, volumeId, startTime, root } = record;
    const folder = await archiveFolderOf(store, record);
    if (!byFolder.has(folder)) byFolder.set(folder, []);
    byFolder.get(folder)?.push({ snapshotId, volumeId, startTime, root, key: await keys.keyOf(record) });
  }
  const rootNow = async (snapshotId: string): Promise<Sha256 | undefined> => {
    const record = await getSnapshotRecord(store, snapshotId).catch((error: unknown) => {
      if (error instanceof ObjectNotFoundError) return undefined;
      throw error;
    });
    return record?.root;
  };
  const bar = new ProgressBar(`checking ${records.length} snapshots`, formatBytes);
  const patience = realPatience(PATIENCE_MILLISECONDS);
  const verified: Verified = { snapshots: 0, blocks: 0, bytes: 0, damage: [] };
  for (const [folder, snapshots] of byFolder) {
    const place = folder === undefined ? store : folderOf(store, folder);
    const onProgress = (bytes: number): void => bar.set(verified.bytes + bytes);
    const options = { recordsAtOnce: RECORDS_ALONE };
    const found = await verifySnapshots(place, snapshots, patience, rootNow, onProgress, options);
    verified.snapshots += found.snapshots;
    verified.blocks += found.blocks;
    verified.bytes += found.bytes;
    for (const each of found.damage) {
      verified.damage.push(folder === undefined ? each : { ...each, object: `${folder}/${each.object}` });
    }
  }
  bar.end();
  const damage = [...unreadable.map((each) => ({ ...each, lost: true, affected: [] })), ...verified.damage];
  const damaged = [...damagedFor(verified.damage)];
  const volumeIds = damaged.length === 0 ? [] : await forgetBases(store.url, damaged, flags);
  const summary = [verified.snapshots, verified.blocks, formatBytes(verified.bytes), damage.length];
  print(
    flags.json,
    { ...verified, damage, storedAnew: volumeIds },
    ['snapshots', 'blocks', 'bytes', 'damaged'],
    [summary],
  );
  if (damage.length === 0) return;
  if (flags.json !== true) {
    const rows = damage.map(({ object, what, affected }) => [
      object,
      what,
      affected
        .map(({ snapshotId, blocks }) => `${snapshotId}${blocks.length > 0 ? ` blocks ${blocks.join(', ')}` : ''}`)
        .join('\n'),
    ]);
    print(false, damage, ['object', 'what is wrong', 'who is affected'], rows);
    if (volumeIds.length > 0)
      process.stdout.write(`The next snapshots of these volumes store everything anew: ${volumeIds.join(', ')}\n`);
  }
  process.exitCode = 1;
}

/** Tells the server whose store it is, if it runs. @returns volumes whose next snapshots will hold everything */
async function forgetBases(storeUrl: string, snapshotIds: string[], flags: StoreFlags): Promise<string[]> {
  const dataDir = chosenDataDir(flags);
  if (!existsSync(dataPaths(dataDir).running) || runningServer(dataDir).objectStore !== storeUrl) return [];
  try {
    const server = connectToServer(flags);
    return (await server.ask<{ volumeIds: string[] }>('forget-damaged', { snapshotIds })).volumeIds;
  } catch (error) {
    process.stderr.write(`The server could not be told of the damage: ${(error as Error).message}\n`);
    return [];
  }
}

/** Brings every completed snapshot back from the bucket alone, and what the saved catalog knows besides. */
export async function rebuild(flags: StoreFlags & { archiveStore?: string; snapshotsOnly?: boolean }): Promise<void> {
  const store = await chosenStore(flags);
  const archive = flags.archiveStore === undefined ? undefined : await openObjectStore(flags.archiveStore);
  const bar = new ProgressBar('records read', String);
  let read = 0;
  const onRecord = (): void => {
    read += 1;
    bar.set(read);
  };
  const rebuilt = await rebuildCatalog(chosenDataDir(flags), store, flags.snapshotsOnly === true, onRecord, archive);
  bar.end();
  const { snapshots, sets, known, unreadable } = rebuilt;
  print(
    flags.json,
    rebuilt,
    ['brought back', 'in sets', 'known already', 'unreadable'],
    [[snapshots, sets, known, unreadable.length]],
  );
  if (flags.json !== true && rebuilt.catalog !== null) {
    const rows = rebuilt.volumes.map(({ volumeId, sizeGiB, fromSnapshot, asOf }) => [
      volumeId,
      `${sizeGiB} GiB`,
      fromSnapshot ?? 'empty: it had no snapshot',
      asOf ?? '',
    ]);
    process.stdout.write(`Instances, volumes and users as of ${rebuilt.catalog}; instances are stopped.\n`);
    print(false, rebuilt.volumes, ['volume', 'size', 'comes back from', 'as of'], rows);
  }
  if (flags.json !== true && rebuilt.partialSets.length > 0) {
    const rows = rebuilt.partialSets.map(({ setId, snapshots: found, of }) => [setId, `${found} of ${of}`]);
    process.stdout.write('Of these sets the rest was deleted, or its records were still to be written:\n');
    print(false, rebuilt.partialSets, ['set', 'snapshots'], rows);
  }
  if (unreadable.length === 0) return;
  for (const { key, why } of unreadable) process.stderr.write(`${key}: ${why}\n`);
  process.exitCode = 1;
}
