import { readFileSync, statSync } from 'node:fs';

const LEAST_KEY_BYTES = 16;

/**
 * Reads shared keys: lines `IDENTITY:HEXKEY`, as psktool writes them; empty lines and those that begin with # count for
 * nothing.
 * @throws with what is wrong with the file
 */
export function readPskFile(path: string | undefined): Map<string, Buffer> {
  const keys = new Map<string, Buffer>();
  if (path === undefined) return keys;
  if ((statSync(path).mode & 0o077) !== 0) throw new Error(`${path} can be read by others: chmod 600 it`);
  for (const [index, line] of readFileSync(path, 'utf8').split('\n').entries()) {
    if (line.trim() === '' || line.startsWith('#')) continue;
    const [, identity, key] = /^([^:]+):((?:[0-9a-fA-F]{2})+)$/.exec(line.trim()) ?? [];
    if (identity === undefined || key === undefined || key.length < 2 * LEAST_KEY_BYTES) {
      throw new Error(`${path} line ${index + 1} is not IDENTITY:HEXKEY with at least ${LEAST_KEY_BYTES} bytes`);
    }
    keys.set(identity, Buffer.from(key, 'hex'));
  }
  return keys;
}
