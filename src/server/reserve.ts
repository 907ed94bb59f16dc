import { randomBytes } from 'node:crypto';
import { existsSync, rmSync } from 'node:fs';
import { rm, statfs, writeFile } from 'node:fs/promises';
import path from 'node:path';

const RESERVE_BYTES = 8 * 1024 ** 2;
/** It is set aside where so many times as much is free. */
const TIMES_FREE = 4;

/**
 * Gives back what was set aside on the data directory's disk. A start writes some things down: on a full disk it could not even open
 * its catalog, and no guest would have its volume until somebody has made room.
 */
export function releaseReserve(file: string): void {
  rmSync(file, { force: true });
}

/** Sets it aside for the next start, where there is room for it. */
export async function setReserveAside(file: string): Promise<void> {
  if (existsSync(file)) return;
  try {
    const { bavail, bsize } = await statfs(path.dirname(file));
    if (bavail * bsize < TIMES_FREE * RESERVE_BYTES) return;
    // Bytes that no file system makes smaller.
    await writeFile(file, randomBytes(RESERVE_BYTES), { mode: 0o600 });
  } catch {
    // It has filled up just now.
    await rm(file, { force: true }).catch(() => undefined);
  }
}
