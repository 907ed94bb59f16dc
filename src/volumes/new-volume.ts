import path from 'node:path';
import type { DataKey } from '../encryption/data-key.ts';
import { asEpoch, BLOCK_BYTES, blockCount } from '../types/units.ts';
import type { Disk } from './disk.ts';
import { Epoch } from './epoch.ts';
import { Hydration } from './hydration.ts';
import { RawFile } from './raw-file.ts';
import { writeVolumeState } from './volume-state.ts';

/** Makes the files of a new volume (see NewVolume); durable when it returns. */
export function createVolume(
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
): void {
  if (volume.sizeBytes % BLOCK_BYTES !== 0)
    throw new Error(`a volume is a whole number of blocks, not ${volume.sizeBytes} bytes`);
  // A directory without volume.json is one whose making was cut short: start over.
  disk.removeTree(directory);
  disk.makeDirectory(directory);
  const blocks = blockCount(volume.sizeBytes);
  RawFile.create(disk, directory, volume.sizeBytes);
  // What has no base begins as a volume does whose history was lost: at an epoch that trusts nothing before it.
  const first = asEpoch(volume.baseless ? 2 : 1);
  Epoch.create(disk, directory, first, blocks).close();
  if (volume.restored) Hydration.create(disk, directory, blocks);
  disk.open(`${directory}/lock`, 'create').close();
  // The directory's own name: a volume that was answered for must be there after a power loss.
  disk.syncDirectory(path.dirname(directory));
  // Last: its presence says that the rest is whole.
  writeVolumeState(disk, directory, {
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
