import path from 'node:path';
import type { DataKey } from '../encryption/data-key.ts';
import { asEpoch, BLOCK_BYTES, blockCount } from '../types/units.ts';
import type { Disk } from './disk.ts';
import { Epoch } from './epoch.ts';
import { Hydration } from './hydration.ts';
import { RawFile } from './raw-file.ts';
import { writeVolumeState } from './volume-state.ts';

/** Makes the files of a new volume (see NewVolume); resolves when they are durable. */
export async function createVolume(
  disk: Disk,
  directory: string,
  volume: {
    volumeId: string;
    sizeBytes: number;
    restored: boolean;
    baseless: boolean;
    key: DataKey | undefined;
    bootId: string;
  },
): Promise<void> {
  if (volume.sizeBytes % BLOCK_BYTES !== 0)
    throw new Error(`a volume is a whole number of blocks, not ${volume.sizeBytes} bytes`);
  // A directory without volume.json is one whose making was cut short: start over.
  if (disk.list(directory).length > 0) await disk.removeLargeTree(directory);
  disk.makeDirectory(directory);
  const blocks = blockCount(volume.sizeBytes);
  // What has no base begins as a volume does whose history was lost: at an epoch that trusts nothing before it.
  const first = asEpoch(volume.baseless ? 2 : 1);
  disk.open(`${directory}/lock`, 'create').close();
  // At once: the file system's journal makes them durable together.
  const made = await Promise.allSettled([
    RawFile.create(disk, directory, volume.sizeBytes),
    Epoch.createFirst(disk, directory, first, blocks),
    volume.restored ? Hydration.create(disk, directory, blocks) : undefined,
    // The directory's own name: a volume that was answered for must be there after a power loss.
    disk.syncDirectory(path.dirname(directory)),
  ]);
  // Only now, when none of it is under way any more: who tries again begins by removing it all.
  for (const each of made) if (each.status === 'rejected') throw each.reason;
  // Last: its presence says that the rest is whole.
  await writeVolumeState(disk, directory, {
    volumeId: volume.volumeId,
    sizeBytes: volume.sizeBytes,
    bootId: volume.bootId,
    // Its bitmaps are not synced: should the power go now, none of them is looked into.
    clean: false,
    trustedFrom: first,
    hydrating: volume.restored,
    keyCheck: volume.key?.check,
  });
}
