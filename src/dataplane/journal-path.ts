import type { EpochNumber } from '../types/units.ts';
import type { Disk } from '../volumes/disk.ts';

/** Where the upload of a cut keeps its journal: beside the volume's other files. */
export function journalPath(volumeDirectory: string, boundary: EpochNumber): string {
  return `${volumeDirectory}/cut-${String(boundary).padStart(8, '0')}.upload`;
}

/** Removes the journals of cuts that are finished: after a kill between a commit and the tidying up. */
export function removeStaleJournals(disk: Disk, volumeDirectory: string, pending: readonly EpochNumber[]): void {
  const wanted = new Set(pending.map((boundary) => journalPath(volumeDirectory, boundary)));
  for (const name of disk.list(volumeDirectory)) {
    const path = `${volumeDirectory}/${name}`;
    if (name.endsWith('.upload') && !wanted.has(path)) disk.remove(path);
  }
}
