import type { Disk, DiskFile } from './disk.ts';

/**
 * Takes a volume's files for this process; the kernel gives them back when it ends, however it ends.
 * @throws VolumeLockedError
 */
export function lockVolume(disk: Disk, directory: string): DiskFile {
  const lock = disk.open(`${directory}/lock`, 'read-write');
  if (lock.tryLock()) return lock;
  lock.close();
  throw new VolumeLockedError(directory);
}

/** Another process has the volume's files open. */
export class VolumeLockedError extends Error {
  override name = 'VolumeLockedError';
  constructor(directory: string) {
    super(`${directory} is open in another process: two servers must not share a data directory`);
  }
}
