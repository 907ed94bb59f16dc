import assert from 'node:assert/strict';
import { readFileSync, statSync } from 'node:fs';
import { test } from 'node:test';
import { NodeDisk } from '../../src/volumes/node-disk.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';

test('files of hundreds of volumes can be made at once', async (t) => {
  const directory = temporaryDirectory(t);
  const disk = new NodeDisk();
  const start = Buffer.from('how it begins');
  const names = Array.from({ length: 600 }, (_, number) => `${directory}/${number}`);
  const files = await Promise.all(names.map((name) => disk.createLater(name, start, 8192)));
  for (const file of files) file.close();
  for (const name of names) assert.deepEqual(readFileSync(name), start);
  assert.ok(statSync(names[0]).blocks * 512 >= 8192, 'its zeroes have room on the disk');
});
