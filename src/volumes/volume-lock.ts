import type { Disk, DiskFile } from './disk.ts';

/**
 * Takes a volume's files for this process, and opens it; the kernel gives them back when the process ends, however it
 * ends. Where the opening fails they are free at once: it may work the next time.
 * @throws VolumeLockedError
 */
export async function underLock<Opened>(
  disk: Disk,
  directory: string,
  open: (lock: DiskFile) => Promise<Opened>,
): Promise<Opened> {
  const lock = disk.open(`${directory}/lock`, 'read-write');
  try {
    if (!lock.tryLock()) throw new VolumeLockedError(directory);
    return await open(lock);
  } catch (error) {
    lock.close();
    throw error;
  }
}

/** Another process has the volume's files open. */
export class VolumeLockedError extends Error {
  override name = 'VolumeLockedError';
  constructor(directory: string) {
    super(`${directory} is open in another process: two servers must not share a data directory`);
  }
}
