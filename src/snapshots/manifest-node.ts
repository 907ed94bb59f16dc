import { createHmac } from 'node:crypto';
import { zstdCompressSync, zstdDecompressSync } from 'node:zlib';
import { type DataKey, WrongKeyError } from '../encryption/data-key.ts';
import { NONCE_BYTES, seal, unseal } from '../encryption/sealing.ts';
import type { Sha256 } from '../types/units.ts';
import type { BlockLocation, PackId } from './block-encoding.ts';
import { CorruptBlockError, type Encoding, sha256 } from './block-encoding.ts';

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
/** Version 1 is plain, version 2 sealed. */
const VERSION = { PLAIN: 1, SEALED: 2 } as const;
const HEADER_BYTES = 16;
const PACK_BYTES = 16;
const NODE_BYTES = 32;
const LEAF_ENTRY_BYTES = 48;
const BRANCH_ENTRY_BYTES = 40;
const KIND = { LEAF: 0, BRANCH: 1 } as const;
/** The largest body: a full leaf whose blocks all lie in different packs. */
const MAX_BODY_BYTES = 8 + NODE_SLOTS * (PACK_BYTES + LEAF_ENTRY_BYTES);

export type EncodedNode = { node: Sha256; bytes: Buffer };

export function nodeKey(node: Sha256): string {
  return `manifests/${node.slice(0, 2)}/${node}`;
}

/** @param key under which the node is sealed */
export function encodeLeaf(leaf: Leaf, key: DataKey | undefined): EncodedNode {
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
  const references = body.subarray(8, 8 + packs.size * PACK_BYTES);
  return key === undefined ? encode(KIND.LEAF, body) : encodeSealed(KIND.LEAF, body, references, key);
}

/** @param key under which the node is sealed */
export function encodeBranch(branch: Branch, key: DataKey | undefined): EncodedNode {
  const body = Buffer.alloc(4 + branch.size * BRANCH_ENTRY_BYTES);
  body.writeUInt32LE(branch.size, 0);
  let at = 4;
  for (const [slot, child] of sorted(branch)) {
    body.writeUInt16LE(slot, at);
    body.writeUInt32LE(child.blocks, at + 4);
    body.write(child.node, at + 8, 'hex');
    at += BRANCH_ENTRY_BYTES;
  }
  if (key === undefined) return encode(KIND.BRANCH, body);
  const references = Buffer.concat(sorted(branch).map(([, child]) => Buffer.from(child.node, 'hex')));
  return encodeSealed(KIND.BRANCH, body, references, key);
}

/** @throws CorruptBlockError, WrongKeyError */
export function decodeLeaf(node: Sha256, bytes: Buffer, key: DataKey | undefined): Leaf {
  const body = decode(node, bytes, KIND.LEAF, key);
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

/** @throws CorruptBlockError, WrongKeyError */
export function decodeBranch(node: Sha256, bytes: Buffer, key: DataKey | undefined): Branch {
  const body = decode(node, bytes, KIND.BRANCH, key);
  const branch: Branch = new Map();
  const count = body.readUInt32LE(0);
  for (let at = 4; at < 4 + count * BRANCH_ENTRY_BYTES; at += BRANCH_ENTRY_BYTES) {
    const child = { blocks: body.readUInt32LE(at + 4), node: body.toString('hex', at + 8, at + 40) as Sha256 };
    branch.set(body.readUInt16LE(at), child);
  }
  return branch;
}

/** What a node names in the store. */
export type References = { nodes: Sha256[]; packs: PackId[] };

/**
 * What a node names, read without its key: a sealed node repeats it outside of the seal (ids that say nothing of what
 * the volume holds), so that a collection never depends on keys.
 * @throws CorruptBlockError
 */
export function referencesOf(node: Sha256, bytes: Buffer): References {
  checkHash(node, bytes);
  const leaf = isLeaf(bytes);
  if (isSealed(bytes)) {
    const size = leaf ? PACK_BYTES : NODE_BYTES;
    const found = Array.from({ length: bytes.readUInt32LE(12) }, (_, number) => {
      const at = HEADER_BYTES + number * size;
      return bytes.toString('hex', at, at + size);
    });
    return leaf ? { nodes: [], packs: found as PackId[] } : { nodes: found as Sha256[], packs: [] };
  }
  if (leaf) {
    const locations = [...decodeLeaf(node, bytes, undefined).values()];
    return { nodes: [], packs: [...new Set(locations.map(({ pack }) => pack))] };
  }
  return { nodes: [...decodeBranch(node, bytes, undefined).values()].map((child) => child.node), packs: [] };
}

function headerOf(version: number, kind: number, bodyLength: number, references: number): Buffer {
  const header = Buffer.alloc(HEADER_BYTES);
  header.write(MAGIC, 0, 'latin1');
  header.writeUInt8(version, 6);
  header.writeUInt8(kind, 7);
  header.writeUInt32LE(bodyLength, 8);
  header.writeUInt32LE(references, 12);
  return header;
}

function encode(kind: number, body: Buffer): EncodedNode {
  const bytes = Buffer.concat([headerOf(VERSION.PLAIN, kind, body.length, 0), zstdCompressSync(body)]);
  return { node: sha256(bytes), bytes };
}

/**
 * The nonce is made of what is sealed (HMAC-SHA-256 under a key of its own): equal nodes are equal objects, as they are
 * without encryption, and two that differ never share a nonce.
 */
function encodeSealed(kind: number, body: Buffer, references: Buffer, key: DataKey): EncodedNode {
  const count = references.length / (kind === KIND.LEAF ? PACK_BYTES : NODE_BYTES);
  const open = Buffer.concat([headerOf(VERSION.SEALED, kind, body.length, count), references]);
  const keys = key.nodeKeys();
  const packed = zstdCompressSync(body);
  const nonce = createHmac('sha256', keys.nonce).update(open).update(packed).digest().subarray(0, NONCE_BYTES);
  const bytes = Buffer.concat([open, nonce, seal(keys.seal, nonce, packed, open)]);
  return { node: sha256(bytes), bytes };
}

function decode(node: Sha256, bytes: Buffer, kind: number, key: DataKey | undefined): Buffer {
  checkHash(node, bytes);
  const version = bytes.readUInt8(6);
  const known = bytes.toString('latin1', 0, 6) === MAGIC && (version === VERSION.PLAIN || version === VERSION.SEALED);
  if (!known || bytes.readUInt8(7) !== kind)
    throw new CorruptBlockError(`manifest node ${node} is not what its parent says it is`);
  const length = bytes.readUInt32LE(8);
  if (length > MAX_BODY_BYTES) throw new CorruptBlockError(`manifest node ${node} claims a body of ${length} bytes`);
  const packed = version === VERSION.PLAIN ? bytes.subarray(HEADER_BYTES) : unsealBody(node, bytes, kind, key);
  return zstdDecompressSync(packed, { maxOutputLength: Math.max(1, length) });
}

function unsealBody(node: Sha256, bytes: Buffer, kind: number, key: DataKey | undefined): Buffer {
  if (key === undefined) throw new WrongKeyError(`manifest node ${node} is encrypted, and its key was not given`);
  const end = HEADER_BYTES + bytes.readUInt32LE(12) * (kind === KIND.LEAF ? PACK_BYTES : NODE_BYTES);
  const nonce = bytes.subarray(end, end + NONCE_BYTES);
  try {
    return unseal(key.nodeKeys().seal, nonce, bytes.subarray(end + NONCE_BYTES), bytes.subarray(0, end));
  } catch {
    // Its bytes hash to its name: they are what was stored, so it is the key that is another one.
    throw new WrongKeyError(`the key is not the one that manifest node ${node} is encrypted with`);
  }
}

/** @throws CorruptBlockError when these are not the node's bytes */
export function checkHash(node: Sha256, bytes: Buffer): void {
  if (bytes.length < HEADER_BYTES || sha256(bytes) !== node)
    throw new CorruptBlockError(`manifest node ${node} is damaged: its bytes have another SHA-256`);
}

/** Whether a node's bytes are a leaf's, for one who holds nothing but the bytes. */
export function isLeaf(bytes: Buffer): boolean {
  return bytes.readUInt8(7) === KIND.LEAF;
}

/** Whether a node's bytes are encrypted. */
export function isSealed(bytes: Buffer): boolean {
  return bytes.readUInt8(6) === VERSION.SEALED;
}

function sorted<Value>(slots: Map<number, Value>): [number, Value][] {
  return [...slots].sort(([a], [b]) => a - b);
}
