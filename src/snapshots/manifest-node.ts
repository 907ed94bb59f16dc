import { createHmac } from 'node:crypto';
import { type DataKey, WrongKeyError } from '../encryption/data-key.ts';
import { NONCE_BYTES, seal, unseal } from '../encryption/sealing.ts';
import { PAGE_MASK_BYTES } from '../types/page-mask.ts';
import type { Sha256 } from '../types/units.ts';
import type { BlockLocation, PackId, RecordLocation } from './block-encoding.ts';
import { CorruptBlockError, type Encoding, recordsOf, sha256 } from './block-encoding.ts';
import { compressionRoom, compressNow, decompressNow } from './zstd.ts';

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
const PATCH_BYTES = LEAF_ENTRY_BYTES + PAGE_MASK_BYTES;
const BRANCH_ENTRY_BYTES = 40;
/** A leaf none of whose blocks is patched is of the first kind, and as it was before there were patches. */
const KIND = { LEAF: 0, BRANCH: 1, PATCHED_LEAF: 2 } as const;
type Kind = (typeof KIND)[keyof typeof KIND];
/** Of zstd, which does the rest: its own default. */
const LEVEL = 3;
/** The largest body: a full leaf whose blocks are all patched, and whose records all lie in different packs. */
const MAX_BODY_BYTES = 12 + NODE_SLOTS * (2 * PACK_BYTES + LEAF_ENTRY_BYTES + PATCH_BYTES);

export type EncodedNode = { node: Sha256; bytes: Buffer };

export function nodeKey(node: Sha256): string {
  return `manifests/${node.slice(0, 2)}/${node}`;
}

/** @param key under which the node is sealed */
export function encodeLeaf(leaf: Leaf, key: DataKey | undefined): EncodedNode {
  const blocks = sorted(leaf);
  const patches = blocks.flatMap(([slot, { patch }]) => (patch === undefined ? [] : [{ slot, patch }]));
  const packs = new Map<PackId, number>();
  for (const { pack } of recordsIn(leaf)) if (!packs.has(pack)) packs.set(pack, packs.size);
  const patchBytes = patches.length === 0 ? 0 : 4 + patches.length * PATCH_BYTES;
  const body = Buffer.alloc(8 + packs.size * PACK_BYTES + blocks.length * LEAF_ENTRY_BYTES + patchBytes);
  const writeEntry = (slot: number, record: RecordLocation, at: number): void => {
    body.writeUInt16LE(slot, at);
    body.writeUInt16LE(packs.get(record.pack) ?? 0, at + 2);
    body.writeUInt32LE(record.offset, at + 4);
    body.writeUInt32LE(record.length, at + 8);
    body.writeUInt8(record.encoding, at + 12);
    body.write(record.sha256, at + 16, 'hex');
  };
  body.writeUInt32LE(packs.size, 0);
  body.writeUInt32LE(blocks.length, 4);
  for (const [pack, number] of packs) body.write(pack, 8 + number * PACK_BYTES, 'hex');
  let at = 8 + packs.size * PACK_BYTES;
  for (const [slot, { whole }] of blocks) {
    writeEntry(slot, whole, at);
    at += LEAF_ENTRY_BYTES;
  }
  if (patches.length > 0) {
    body.writeUInt32LE(patches.length, at);
    at += 4;
    for (const { slot, patch } of patches) {
      writeEntry(slot, patch.record, at);
      body.set(patch.pages, at + LEAF_ENTRY_BYTES);
      at += PATCH_BYTES;
    }
  }
  const kind = patches.length === 0 ? KIND.LEAF : KIND.PATCHED_LEAF;
  const references = body.subarray(8, 8 + packs.size * PACK_BYTES);
  return key === undefined ? encode(kind, body) : encodeSealed(kind, body, references, key);
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
  const body = decode(node, bytes, [KIND.LEAF, KIND.PATCHED_LEAF], key);
  const packCount = body.readUInt32LE(0);
  const count = body.readUInt32LE(4);
  const packs = Array.from({ length: packCount }, (_, number) => {
    const start = 8 + number * PACK_BYTES;
    return body.toString('hex', start, start + PACK_BYTES) as PackId;
  });
  const readEntry = (at: number): RecordLocation => ({
    pack: packs[body.readUInt16LE(at + 2)],
    offset: body.readUInt32LE(at + 4),
    length: body.readUInt32LE(at + 8),
    encoding: body.readUInt8(at + 12) as Encoding,
    sha256: body.toString('hex', at + 16, at + 48) as Sha256,
  });
  const leaf: Leaf = new Map();
  let at = 8 + packCount * PACK_BYTES;
  for (let index = 0; index < count; index += 1) {
    leaf.set(body.readUInt16LE(at), { whole: readEntry(at), patch: undefined });
    at += LEAF_ENTRY_BYTES;
  }
  if (kindOf(bytes) !== KIND.PATCHED_LEAF) return leaf;
  const patchCount = body.readUInt32LE(at);
  at += 4;
  for (let index = 0; index < patchCount; index += 1) {
    const slot = body.readUInt16LE(at);
    const patched = leaf.get(slot);
    if (patched === undefined)
      throw new CorruptBlockError(`manifest node ${node} patches slot ${slot}, which it does not have`);
    const pages = Uint8Array.from(body.subarray(at + LEAF_ENTRY_BYTES, at + PATCH_BYTES));
    leaf.set(slot, { whole: patched.whole, patch: { pages, record: readEntry(at) } });
    at += PATCH_BYTES;
  }
  return leaf;
}

/** The records of a leaf, in the order of its blocks. */
function recordsIn(leaf: Leaf): RecordLocation[] {
  return sorted(leaf).flatMap(([, location]) => recordsOf(location).map(({ record }) => record));
}

/** @throws CorruptBlockError, WrongKeyError */
export function decodeBranch(node: Sha256, bytes: Buffer, key: DataKey | undefined): Branch {
  const body = decode(node, bytes, [KIND.BRANCH], key);
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
    const records = recordsIn(decodeLeaf(node, bytes, undefined));
    return { nodes: [], packs: [...new Set(records.map(({ pack }) => pack))] };
  }
  return { nodes: [...decodeBranch(node, bytes, undefined).values()].map((child) => child.node), packs: [] };
}

function headerOf(version: number, kind: Kind, bodyLength: number, references: number): Buffer {
  const header = Buffer.alloc(HEADER_BYTES);
  header.write(MAGIC, 0, 'latin1');
  header.writeUInt8(version, 6);
  header.writeUInt8(kind, 7);
  header.writeUInt32LE(bodyLength, 8);
  header.writeUInt32LE(references, 12);
  return header;
}

function encode(kind: Kind, body: Buffer): EncodedNode {
  const bytes = Buffer.concat([headerOf(VERSION.PLAIN, kind, body.length, 0), compressed(body)]);
  return { node: sha256(bytes), bytes };
}

/**
 * The nonce is made of what is sealed (HMAC-SHA-256 under a key of its own): equal nodes are equal objects, as they are
 * without encryption, and two that differ never share a nonce.
 */
function encodeSealed(kind: Kind, body: Buffer, references: Buffer, key: DataKey): EncodedNode {
  const count = references.length / (kind === KIND.BRANCH ? NODE_BYTES : PACK_BYTES);
  const open = Buffer.concat([headerOf(VERSION.SEALED, kind, body.length, count), references]);
  const keys = key.nodeKeys();
  const packed = compressed(body);
  const nonce = createHmac('sha256', keys.nonce).update(open).update(packed).digest().subarray(0, NONCE_BYTES);
  const bytes = Buffer.concat([open, nonce, seal(keys.seal, nonce, packed, open)]);
  return { node: sha256(bytes), bytes };
}

function decode(node: Sha256, bytes: Buffer, kinds: readonly Kind[], key: DataKey | undefined): Buffer {
  checkHash(node, bytes);
  const version = bytes.readUInt8(6);
  const known = bytes.toString('latin1', 0, 6) === MAGIC && (version === VERSION.PLAIN || version === VERSION.SEALED);
  if (!known || !kinds.some((kind) => kind === kindOf(bytes)))
    throw new CorruptBlockError(`manifest node ${node} is not what its parent says it is`);
  const length = bytes.readUInt32LE(8);
  if (length > MAX_BODY_BYTES) throw new CorruptBlockError(`manifest node ${node} claims a body of ${length} bytes`);
  const packed = version === VERSION.PLAIN ? bytes.subarray(HEADER_BYTES) : unsealBody(node, bytes, key);
  const body = Buffer.alloc(length);
  const filled = decompressNow(body, packed);
  if (filled !== length)
    throw new CorruptBlockError(`manifest node ${node} claims a body of ${length} bytes, and has one of ${filled}`);
  return body;
}

/** Of the largest node so far. */
let room = Buffer.alloc(0);

function compressed(body: Buffer): Buffer {
  const most = compressionRoom(body.length);
  if (room.length < most) room = Buffer.alloc(most);
  return Buffer.from(room.subarray(0, compressNow(room, body, LEVEL)));
}

function unsealBody(node: Sha256, bytes: Buffer, key: DataKey | undefined): Buffer {
  if (key === undefined) throw new WrongKeyError(`manifest node ${node} is encrypted, and its key was not given`);
  const end = HEADER_BYTES + bytes.readUInt32LE(12) * (isLeaf(bytes) ? PACK_BYTES : NODE_BYTES);
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

/** Whether a node's bytes are a leaf's (of either kind), for one who holds nothing but the bytes. */
export function isLeaf(bytes: Buffer): boolean {
  return kindOf(bytes) !== KIND.BRANCH;
}

function kindOf(bytes: Buffer): number {
  return bytes.readUInt8(7);
}

/** Whether a node's bytes are encrypted. */
export function isSealed(bytes: Buffer): boolean {
  return bytes.readUInt8(6) === VERSION.SEALED;
}

function sorted<Value>(slots: Map<number, Value>): [number, Value][] {
  return [...slots].sort(([a], [b]) => a - b);
}
