import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type PackId, sha256 } from '../../src/snapshots/block-encoding.ts';
import { decodeLeaf, encodeLeaf, type Leaf } from '../../src/snapshots/manifest-node.ts';
import type { Sha256 } from '../../src/types/units.ts';

const record = {
  pack: 'ab'.repeat(16) as PackId,
  offset: 0,
  length: 10,
  encoding: 0,
  sha256: 'c'.repeat(64) as Sha256,
};
const leaf = new Map([[3, { whole: record, patch: undefined }]]) as Leaf;

test('a node that is not as long as it says is damaged, though its name is right', () => {
  const { node, bytes } = encodeLeaf(leaf, undefined);
  assert.deepEqual(decodeLeaf(node, bytes, undefined), leaf);
  for (const difference of [1, 1000]) {
    const longer = Buffer.from(bytes);
    longer.writeUInt32LE(bytes.readUInt32LE(8) + difference, 8);
    assert.throws(() => decodeLeaf(sha256(longer), longer, undefined), { name: 'CorruptBlockError' });
  }
  const shorter = Buffer.from(bytes);
  shorter.writeUInt32LE(bytes.readUInt32LE(8) - 1, 8);
  assert.throws(() => decodeLeaf(sha256(shorter), shorter, undefined), { name: 'ZstdError' });
});
