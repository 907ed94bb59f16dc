import { readdirSync, statSync } from 'node:fs';

/** How many bytes the files below a directory have, all together. */
export function storeBytes(directory: string): number {
  let bytes = 0;
  for (const name of readdirSync(directory)) {
    const path = `${directory}/${name}`;
    const stat = statSync(path);
    bytes += stat.isDirectory() ? storeBytes(path) : stat.size;
  }
  return bytes;
}
