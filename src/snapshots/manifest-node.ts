import { zstdCompressSync, zstdDecompressSync } from 'node:zlib';
import type { Sha256 } from '../types/units.ts';
import { CorruptBlockError, type Encoding, sha256 } from './block-encoding.ts';
import type { BlockLocation, PackId } from './pack.ts';

/**
 * A manifest is a tree of three levels: the root, branches, and leaves. A leaf maps 1,024 neighbouring blocks
 * (512 MiB), a branch holds 1,024 leaves (512 GiB), the root up to 1,024 branches. Each node is an object whose key is
 * the SHA-256 of its bytes, so two manifests share every node in which they do not differ.
 */
export const NODE_SLOTS = 1024;
/** A leaf has a slot for each of its blocks. */
export const LEAF_BLOCKS = 1024;

/** The blocks that hold data, by their slot in the leaf. A block that is not here is zeroes. */
export type Leaf = Map<number, BlockLocation>;
/** The children that hold data, by slot, with the number of blocks that hold data below each. */
export type Branch = Map<number, { node: Sha256; blocks: number }>;

const MAGIC = 'CCNODE';
const VERSION = 1;
const HEADER_BYTES = 16;
const PACK_BYTES = 16;
const LEAF_ENTRY_BYTES = 48;
const BRANCH_ENTRY_BYTES = 40;
const KIND = { LEAF: 0, BRANCH: 1 } as const;
/** The largest body: a full leaf whose blocks all lie in different packs. */
const MAX_BODY_BYTES = 8 + NODE_SLOTS * (PACK_BYTES + LEAF_ENTRY_BYTES);

export type EncodedNode = { node: Sha256; bytes: Buffer };

export function nodeKey(node: Sha256): string {
  return `manifests/${node.slice(0, 2)}/${node}`;
}

export function encodeLeaf(leaf: Leaf): EncodedNode {
  const packs = new Map<PackId, number>();
  for (const { pack } of leaf.values()) if (!packs.has(pack)) packs.set(pack, packs.size);
  const body = Buffer.alloc(8 + packs.size * PACK_BYTES + leaf.size * LEAF_ENTRY_BYTES);
  body.writeUInt32LE(packs.size, 0);
  body.writeUInt32LE(leaf.size, 4);
  for (const [pack, number] of packs) body.write(pack, 8 + number * PACK_BYTES, 'hex');
  let at = 8 + packs.size * PACK_BYTES;
  for (const [slot, location] of sorted(leaf)) {
    body.writeUInt16LE(slot, at);
    body.writeUInt16LE(packs.get(location.pack) ?? 0, at + 2);
    body.writeUInt32LE(location.offset, at + 4);
    body.writeUInt32LE(location.length, at + 8);
    body.writeUInt8(location.encoding, at + 12);
    body.write(location.sha256, at + 16, 'hex');
    at += LEAF_ENTRY_BYTES;
  }
  return encode(KIND.LEAF, body);
}

export function encodeBranch(branch: Branch): EncodedNode {
  const body = Buffer.alloc(4 + branch.size * BRANCH_ENTRY_BYTES);
  body.writeUInt32LE(branch.size, 0);
  let at = 4;
  for (const [slot, child] of sorted(branch)) {
    body.writeUInt16LE(slot, at);
    body.writeUInt32LE(child.blocks, at + 4);
    body.write(child.node, at + 8, 'hex');
    at += BRANCH_ENTRY_BYTES;
  }
  return encode(KIND.BRANCH, body);
}

export function decodeLeaf(node: Sha256, bytes: Buffer): Leaf {
  const body = decode(node, bytes, KIND.LEAF);
  const packCount = body.readUInt32LE(0);
  const count = body.readUInt32LE(4);
  const packs = Array.from({ length: packCount }, (_, number) => {
    const start = 8 + number * PACK_BYTES;
    return body.toString('hex', start, start + PACK_BYTES) as PackId;
  });
  const leaf: Leaf = new Map();
  let at = 8 + packCount * PACK_BYTES;
  for (let index = 0; index < count; index += 1) {
    leaf.set(body.readUInt16LE(at), {
      pack: packs[body.readUInt16LE(at + 2)],
      offset: body.readUInt32LE(at + 4),
      length: body.readUInt32LE(at + 8),
      encoding: body.readUInt8(at + 12) as Encoding,
      sha256: body.toString('hex', at + 16, at + 48) as Sha256,
    });
    at += LEAF_ENTRY_BYTES;
  }
  return leaf;
}

export function decodeBranch(node: Sha256, bytes: Buffer): Branch {
  const body = decode(node, bytes, KIND.BRANCH);
  const branch: Branch = new Map();
  const count = body.readUInt32LE(0);
  for (let at = 4; at < 4 + count * BRANCH_ENTRY_BYTES; at += BRANCH_ENTRY_BYTES) {
    const child = { blocks: body.readUInt32LE(at + 4), node: body.toString('hex', at + 8, at + 40) as Sha256 };
    branch.set(body.readUInt16LE(at), child);
  }
  return branch;
}

function encode(kind: number, body: Buffer): EncodedNode {
  const header = Buffer.alloc(HEADER_BYTES);
  header.write(MAGIC, 0, 'latin1');
  header.writeUInt8(VERSION, 6);
  header.writeUInt8(kind, 7);
  header.writeUInt32LE(body.length, 8);
  const bytes = Buffer.concat([header, zstdCompressSync(body)]);
  return { node: sha256(bytes), bytes };
}

function decode(node: Sha256, bytes: Buffer, kind: number): Buffer {
  if (sha256(bytes) !== node)
    throw new CorruptBlockError(`manifest node ${node} is damaged: its bytes have another SHA-256`);
  const known = bytes.toString('latin1', 0, 6) === MAGIC && bytes.readUInt8(6) === VERSION;
  if (!known || bytes.readUInt8(7) !== kind)
    throw new CorruptBlockError(`manifest node ${node} is not what its parent says it is`);
  const length = bytes.readUInt32LE(8);
  if (length > MAX_BODY_BYTES) throw new CorruptBlockError(`manifest node ${node} claims a body of ${length} bytes`);
  return zstdDecompressSync(bytes.subarray(HEADER_BYTES), { maxOutputLength: Math.max(1, length) });
}

/** Whether a node's bytes are a leaf's, for one who holds nothing but the bytes. */
export function isLeaf(bytes: Buffer): boolean {
  return bytes.readUInt8(7) === KIND.LEAF;
}

function sorted<Value>(slots: Map<number, Value>): [number, Value][] {
  return [...slots].sort(([a], [b]) => a - b);
}
