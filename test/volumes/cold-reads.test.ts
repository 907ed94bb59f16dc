import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { DataKey } from '../../src/encryption/data-key.ts';
import { PageCipher } from '../../src/encryption/page-cipher.ts';
import type { DiskFile } from '../../src/volumes/disk.ts';
import { NodeDisk } from '../../src/volumes/node-disk.ts';
import { RawFile } from '../../src/volumes/raw-file.ts';
import { CrashDisk } from '../support/crash-disk.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';

const SIZE = 1024 * 1024;

test('a read of what is not in memory says so, and finds it once it was brought near', async (t) => {
  const path = `${temporaryDirectory(t)}/file`;
  const file = new NodeDisk().open(path, 'create');
  t.after(() => file.close());
  const bytes = randomBytes(SIZE);
  file.write(bytes, 0, SIZE, 0);
  const target = Buffer.alloc(SIZE + 1);
  assert.ok(file.readNow(target, 1, SIZE, 0), 'what was just written is in memory');
  assert.ok(target.subarray(1).equals(bytes));
  let cold = 0;
  for (let position = 0; position < SIZE; position += 128 * 1024) {
    await file.sync();
    file.forgetPages();
    target.fill(0);
    if (!file.readNow(target, 0, 5000, position)) {
      cold += 1;
      await file.bringNear(position, 5000);
      assert.ok(file.readNow(target, 0, 5000, position));
    }
    assert.ok(target.subarray(0, 5000).equals(bytes.subarray(position, position + 5000)));
  }
  // A file system in memory has nothing else to read from.
  t.diagnostic(`${cold} of 8 reads were cold`);
});

test('a file that is closed while another thread reads it is closed after that', async (t) => {
  const directory = temporaryDirectory(t);
  const disk = new NodeDisk();
  const file = disk.open(`${directory}/file`, 'create');
  file.resize(SIZE);
  const reads = [file.bringNear(0, SIZE), file.bringNear(0, SIZE)];
  file.close();
  // Its number would be this one's.
  const other = disk.open(`${directory}/other`, 'create');
  other.write(Buffer.from('other'), 0, 5, 0);
  assert.equal(file.size(), SIZE, 'the reads have it still');
  await Promise.all(reads);
  assert.throws(() => file.size(), /EBADF/);
  assert.equal(other.size(), 5);
  other.close();
});

for (const encrypted of [false, true]) {
  test(`${encrypted ? 'an encrypted' : 'a'} volume’s bytes are read at once or not at all, whatever the alignment`, (t) => {
    const directory = temporaryDirectory(t);
    const disk = new CrashDisk();
    RawFile.create(disk, directory, SIZE);
    const cipher = encrypted ? new PageCipher(DataKey.generate().volumeKey()) : undefined;
    const raw = RawFile.open(disk, directory, SIZE, 'read-write', cipher);
    const bytes = randomBytes(SIZE);
    raw.write(bytes, 0, SIZE, 0);
    for (const [offset, length] of [
      [0, 4096],
      [8192, 65536],
      [100, 200],
      [4000, 300_000],
      [SIZE - 512, 512],
    ] as const) {
      const target = Buffer.alloc(length);
      disk.isCold = () => true;
      assert.equal(raw.readNow(target, 0, length, offset), false);
      disk.isCold = () => false;
      assert.equal(raw.readNow(target, 0, length, offset), true);
      assert.ok(target.equals(bytes.subarray(offset, offset + length)), `${length} bytes at ${offset}`);
    }
    raw.close();
  });
}

test('where the system cannot say what is in memory, reads wait as they always did', (t) => {
  // /proc is such a file system.
  const file: DiskFile = new NodeDisk().open('/proc/self/status', 'read-only');
  t.after(() => file.close());
  const target = Buffer.alloc(5);
  assert.equal(file.readNow(target, 0, 5, 0), true);
  assert.equal(target.toString('latin1'), 'Name:');
});
