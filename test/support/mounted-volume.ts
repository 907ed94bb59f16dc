import { spawn } from 'node:child_process';
import { mkdirSync, readFileSync } from 'node:fs';
import { tool } from './tools.ts';

export type MountedVolume = { path: string; unmount: () => Promise<void> };

/** Puts a real file system on an export: nbdfuse, a loop device, ext4, a mount. @param format make it anew */
export async function mountExport(
  directory: string,
  name: string,
  uri: string,
  format: boolean,
): Promise<MountedVolume> {
  const fuse = `${directory}/${name}.nbd`;
  const path = `${directory}/${name}`;
  mkdirSync(fuse);
  mkdirSync(path);
  const nbdfuse = spawn('nbdfuse', [fuse, uri], { stdio: 'ignore' });
  while (!readFileSync('/proc/mounts', 'utf8').includes(fuse)) {
    if (nbdfuse.exitCode !== null) throw new Error(`nbdfuse ended with ${nbdfuse.exitCode}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  const loop = (await tool('losetup', ['--find', '--show', `${fuse}/nbd`])).trim();
  if (format) await tool('mkfs.ext4', ['-q', loop]);
  await tool('mount', [loop, path]);
  return {
    path,
    async unmount() {
      await tool('umount', [path]);
      await tool('losetup', ['-d', loop]);
      const exited = new Promise((resolve) => nbdfuse.once('exit', resolve));
      await tool('fusermount3', ['-u', fuse]);
      await exited;
    },
  };
}
