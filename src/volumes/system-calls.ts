import koffi from 'koffi';
import { addressOf } from '../types/address.ts';
import { ConcurrencyLimit } from '../types/concurrency-limit.ts';

/**
 * The Linux calls that Node does not have: holes in files (fallocate, lseek SEEK_DATA / SEEK_HOLE), reads of what is in
 * memory alone (preadv2), file locks that end with the process (flock), what became of a file's write-back
 * (sync_file_range), and a way to have its pages read anew (posix_fadvise).
 */
const libc = koffi.load('libc.so.6');
const fallocateCall = libc.func('int fallocate(int fd, int mode, int64_t offset, int64_t length)');
const preadCall = libc.func('int64_t preadv2(int fd, uintptr_t vector, int count, int64_t offset, int flags)');
const lseekCall = libc.func('int64_t lseek(int fd, int64_t offset, int whence)');
const fadviseCall = libc.func('int posix_fadvise(int fd, int64_t offset, int64_t length, int advice)');
const syncFileRangeCall = libc.func('int sync_file_range(int fd, int64_t offset, int64_t length, unsigned int flags)');
const flockCall = libc.func('int flock(int fd, int operation)');

const KEEP_SIZE = 0x01;
const PUNCH_HOLE = 0x02;
const ZERO_RANGE = 0x10;
const READ_NOW = 0x08;
const SEEK_DATA = 3;
const SEEK_HOLE = 4;
const LOCK_EXCLUSIVE_NO_WAIT = 2 | 4;
const WAIT_BEFORE = 1;
const NOT_NEEDED = 4;
/** No file of ours has a byte there (bytes). */
const BEYOND_ALL_FILES = 2 ** 52;
const errorNames = new Map(Object.entries(koffi.os.errno).map(([name, number]) => [number, name]));

function systemError(call: string): NodeJS.ErrnoException {
  const code = errorNames.get(koffi.errno()) ?? 'EIO';
  return Object.assign(new Error(`${code}: ${call} failed`), { code, syscall: call });
}

export function punchHole(fd: number, position: number, length: number): void {
  if (fallocateCall(fd, PUNCH_HOLE | KEEP_SIZE, position, length) !== 0) throw systemError('fallocate');
}

/** @returns false where the file system cannot do it; the caller then writes the zeroes itself */
export function zeroRange(fd: number, position: number, length: number): boolean {
  if (fallocateCall(fd, ZERO_RANGE | KEEP_SIZE, position, length) === 0) return true;
  const error = systemError('fallocate');
  if (error.code === 'EOPNOTSUPP') return false;
  throw error;
}

/** More than a thread pool works at; koffi refuses calls of which 256 are under way. */
const calls = new ConcurrencyLimit(16);

/** The same, not on the thread that calls. @returns false where it could not be done, for whatever reason */
export function zeroRangeLater(fd: number, position: number, length: number): Promise<boolean> {
  return calls.run(
    () =>
      new Promise((resolve) => {
        fallocateCall.async(fd, ZERO_RANGE | KEEP_SIZE, position, length, (error: Error | null, result: number) =>
          resolve(error === null && result === 0),
        );
      }),
  );
}

/** One piece of memory, where the call looks for it: its address and its length. */
const vector = new DataView(new ArrayBuffer(16));
const vectorAddress = addressOf(new Uint8Array(vector.buffer));

/**
 * Reads what is in the page cache (RWF_NOWAIT, preadv2(2)); what is not, the kernel begins to read.
 * @returns how many bytes; -1 where the first of them is not in memory; undefined where the file system does not have the call
 */
export function readCached(
  fd: number,
  target: Uint8Array,
  targetStart: number,
  length: number,
  position: number,
): number | undefined {
  const address = addressOf(target) + targetStart;
  vector.setUint32(0, address >>> 0, true);
  vector.setUint32(4, Math.floor(address / 0x1_0000_0000), true);
  vector.setUint32(8, length, true);
  const read = Number(preadCall(fd, vectorAddress, 1, position, READ_NOW));
  // An error as an object takes longer than the call.
  if (read >= 0 || koffi.errno() === koffi.os.errno.EAGAIN) return read;
  const error = systemError('preadv2');
  if (error.code === 'EOPNOTSUPP' || error.code === 'ENOSYS' || error.code === 'EINVAL') return undefined;
  throw error;
}

/** @returns undefined when there is no data at or after `position` */
export function seekData(fd: number, position: number): number | undefined {
  const found = Number(lseekCall(fd, position, SEEK_DATA));
  if (found >= 0) return found;
  const error = systemError('lseek');
  if (error.code === 'ENXIO') return undefined;
  throw error;
}

export function seekHole(fd: number, position: number): number {
  const found = Number(lseekCall(fd, position, SEEK_HOLE));
  if (found < 0) throw systemError('lseek');
  return found;
}

/** @returns false when another process (or another open of the file) holds the lock */
export function lockFile(fd: number): boolean {
  if (flockCall(fd, LOCK_EXCLUSIVE_NO_WAIT) === 0) return true;
  const error = systemError('flock');
  if (error.code === 'EWOULDBLOCK' || error.code === 'EAGAIN') return false;
  throw error;
}

/**
 * Asks for the outcome of a file's write-back so far: sync_file_range of a place where there is nothing waits for nothing
 * and writes nothing, but answers, as fsync does and once for each open file, with what has failed in any part of it.
 */
export function writeBackError(fd: number): Error | undefined {
  if (syncFileRangeCall(fd, BEYOND_ALL_FILES, 1, WAIT_BEFORE) === 0) return undefined;
  const error = systemError('sync_file_range');
  // A file system, or a sandbox, that does not have the call.
  return error.code === 'ENOSYS' || error.code === 'ESPIPE' || error.code === 'EINVAL' ? undefined : error;
}

/** Drops the file's pages from memory, but for those that are still to be written. */
export function forgetPages(fd: number): void {
  fadviseCall(fd, 0, 0, NOT_NEEDED);
}
