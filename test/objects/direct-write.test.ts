import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { test } from 'node:test';
import { alignedBuffer, writeDirectly } from '../../src/objects/direct-write.ts';
import { DirectoryStore } from '../../src/objects/directory-store.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';
import { tool, withoutMounts } from '../support/tools.ts';

const LENGTHS = [1, 4095, 4096, 4097, 1024 * 1024 - 1, 1024 * 1024, 1024 * 1024 + 1, 9_999_999];

test('what is written without the page cache is all there, whatever its length and its pieces', async (t) => {
  const directory = temporaryDirectory(t);
  for (const length of LENGTHS) {
    const bytes = randomBytes(length);
    const cut = Math.floor(length / 3);
    const path = `${directory}/${length}`;
    const file = await writeDirectly(path, [bytes.subarray(0, cut), bytes.subarray(cut)]);
    // Where the file system cannot do it, nothing is made.
    if (file === undefined) {
      assert.deepEqual(readdirSync(directory), []);
      return t.skip('the file system of the temporary directory cannot do it');
    }
    await file.close();
    assert.ok(readFileSync(path).equals(bytes), `${length} bytes`);
  }
});

test('what lies in aligned memory goes from there, at the beginning and, where it fits, behind other pieces', async (t) => {
  const directory = temporaryDirectory(t);
  const memory = alignedBuffer(10 * 1024 * 1024);
  randomBytes(memory.length).copy(memory);
  const other = randomBytes(5000);
  const pieces: Record<string, Uint8Array[]> = {};
  for (const length of LENGTHS) {
    pieces[`${length}, then others`] = [memory.subarray(0, length), other, other];
    pieces[`${length}, not from a page on`] = [memory.subarray(100, length + 100), other];
    pieces[`${length}, behind a page`] = [other.subarray(0, 4096), memory.subarray(4096, length + 4096)];
    pieces[`${length}, behind less`] = [other, memory.subarray(4096, length + 4096)];
  }
  for (const [name, of] of Object.entries(pieces)) {
    const path = `${directory}/${name}`;
    const file = await writeDirectly(path, of);
    if (file === undefined) return t.skip('the file system of the temporary directory cannot do it');
    await file.close();
    assert.ok(readFileSync(path).equals(Buffer.concat(of)), name);
  }
});

test('a file system that cannot do it: the store writes as ever, and nothing half-made stays', {
  skip: withoutMounts('mount'),
}, async (t) => {
  const mount = mkdtempSync(`${tmpdir()}/cleancut-ramfs-`);
  await tool('mount', ['-t', 'ramfs', 'ramfs', mount]);
  t.after(async () => {
    await tool('umount', ['-l', mount]);
    rmdirSync(mount);
  });
  assert.equal(await writeDirectly(`${mount}/x`, [randomBytes(100)]), undefined);
  assert.deepEqual(readdirSync(mount), []);
  const store = new DirectoryStore(mount);
  const bytes = randomBytes(3_000_000);
  await store.put('packs/aa/large', [bytes]);
  assert.ok((await store.get('packs/aa/large')).equals(bytes));
  assert.deepEqual(readdirSync(`${mount}/packs/aa`), ['large']);
});
