import { asEpoch, blockCount, type EpochNumber } from '../types/units.ts';
import { NotABitmapError } from './bitmap-file.ts';
import type { Disk, DiskFile, OpenMode } from './disk.ts';
import type { KnownCuts } from './engine.ts';
import { Epoch } from './epoch.ts';
import { hasMarks } from './hydration.ts';
import type { RawFile } from './raw-file.ts';
import type { VolumeState } from './volume-state.ts';

/** Which blocks of a restored volume are its own. */
const MARKS = /^hydrated/;
/** Dirty bits, old pages, and what uploads have written down. */
const HISTORY = /^(?:epoch|cut)-/;
/** Blocks that an upload has stored are not kept for it any more. */
const UPLOADS = /^cut-/;

/** What of a volume's files can be believed by who opens it. */
export type Remains = {
  /** Anything that was not synced may be gone, of the volume's own bytes too. */
  powerLost: boolean;
  /** Dirty bits and old pages cannot be believed; the volume's own bytes may be whole nevertheless. */
  historyLost: boolean;
  /** The marks of restored blocks that were never synced cannot be believed. */
  marksLost: boolean;
};

/**
 * What has become of a volume's files since they were written. A killed process loses nothing: the page cache lives on. But
 * the machine may have lost its power, or the disk may have refused what the kernel wrote back after the kill; then
 * there is nobody left whom a sync would tell.
 * @param bootId the machine's boot now
 * @param isSuspect the disk has refused a sync of it to this process
 */
export function whatRemains(
  disk: Disk,
  directory: string,
  state: VolumeState,
  raw: RawFile,
  bootId: string,
  isSuspect: boolean,
): Remains {
  // All was synced at a clean end, but for the marks that have a synced copy.
  if (state.clean) return { powerLost: false, historyLost: false, marksLost: true };
  const marksGone = state.hydrating && !hasMarks(disk, directory);
  const refused = raw.writeBackError() !== undefined || anyRefused(disk, directory, MARKS) || marksGone;
  const powerLost = refused || state.bootId !== bootId || isSuspect;
  return { powerLost, historyLost: powerLost || anyRefused(disk, directory, HISTORY), marksLost: powerLost };
}

/**
 * The epochs that can be believed, oldest first; a new one where there are none. Then `state.trustedFrom` says so.
 * @param known by the catalog: after a power loss the epochs' own files may know of fewer cuts
 */
export function openEpochs(
  disk: Disk,
  directory: string,
  state: VolumeState,
  historyLost: boolean,
  known: KnownCuts,
): Epoch[] {
  const blocks = blockCount(state.sizeBytes);
  // Once lost, their files are not even looked into: any part of them may be missing, their headers too.
  const epochs = historyLost ? [] : openAllOrNone(disk, directory, blocks);
  // A history that was lost before goes on from where it can be trusted; a base that is given up (NO_BASE) is never whole.
  const since = state.trustedFrom > 1 ? Math.max(known.base, state.trustedFrom) : known.base;
  if (epochs.length > 0 && isWholeSince(asEpoch(since), epochs)) return epochs;
  for (const epoch of epochs) epoch.close();
  // What was not synced may be gone: dirty bits, staged pages, both. From here on a new epoch can be trusted; what came
  // before is found by comparing hashes, and cuts that were pending are lost.
  const next = asEpoch(Math.max(state.trustedFrom, known.newest, Epoch.removeAll(disk, directory)) + 1);
  state.trustedFrom = next;
  return [Epoch.create(disk, directory, next, blocks)];
}

/**
 * Whether there is an epoch for all the time since a base. Where catalog and volume are not of the same time, because
 * either was put back from a copy, there is none: what is missing would not be in the next snapshot, and nobody would
 * know.
 */
function isWholeSince(base: EpochNumber, epochs: readonly Epoch[]): boolean {
  const since = epochs.filter((epoch) => epoch.number >= base);
  return since.length > 0 && since.every((epoch, index) => epoch.number === base + index);
}

/**
 * None where dirty bits have lost their beginning: the disk has refused it, and whoever was told was killed before he could
 * leave a note (see LocalVolume). The volume's own bytes must not be kept from its guest for that.
 */
function openAllOrNone(disk: Disk, directory: string, blocks: number): Epoch[] {
  try {
    return Epoch.openAll(disk, directory, blocks);
  } catch (error) {
    if (error instanceof NotABitmapError) return [];
    throw error;
  }
}

/** Makes what uploads have written down durable: at a clean end it is believed whatever happens afterwards. */
export async function syncUploads(disk: Disk, directory: string): Promise<void> {
  for (const name of disk.list(directory)) {
    if (!UPLOADS.test(name)) continue;
    const file = openIfThere(disk, `${directory}/${name}`, 'read-write');
    try {
      await file?.sync();
    } finally {
      file?.close();
    }
  }
}

/** What a finished cut leaves is removed on another thread, and may be gone since its name was read. */
function openIfThere(disk: Disk, path: string, mode: OpenMode): DiskFile | undefined {
  try {
    return disk.open(path, mode);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

/** Whether the device has refused bytes of any file whose name is like this, and nobody has been told. */
function anyRefused(disk: Disk, directory: string, names: RegExp): boolean {
  let refused = false;
  for (const name of disk.list(directory)) {
    if (!names.test(name)) continue;
    const file = openIfThere(disk, `${directory}/${name}`, 'read-only');
    if (file?.writeBackError() !== undefined) refused = true;
    file?.close();
  }
  return refused;
}
