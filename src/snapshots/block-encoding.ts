import { hash, type KeyObject } from 'node:crypto';
import { type DataKey, WrongKeyError } from '../encryption/data-key.ts';
import { NONCE_BYTES, sealInto, unseal } from '../encryption/sealing.ts';
import type { Branded } from '../types/ids.ts';
import { giveBack, roomFor } from '../types/memory.ts';
import { countPages, isSameMask, type PageMask, runsOf } from '../types/page-mask.ts';
import { BLOCK_BYTES, PAGE_BYTES, type Sha256 } from '../types/units.ts';
import { compressInto, compressionRoom, compressNow, decompressInto, ZstdError } from './zstd.ts';

/** How a block's bytes lie in a pack. The numbers are part of the format (docs/format.md). */
export const ENCODING = { PLAIN: 0, ZSTD: 1, SEALED_PLAIN: 2, SEALED_ZSTD: 3 } as const;
export type Encoding = (typeof ENCODING)[keyof typeof ENCODING];

/** 32 hex digits. */
export type PackId = Branded<string, 'PackId'>;

/** Where bytes are stored, and what they must hash to once decoded (see blockHash). */
export type RecordLocation = { pack: PackId; offset: number; length: number; encoding: Encoding; sha256: Sha256 };

/** The order in which records lie, pack by pack. */
export function byPlace(a: RecordLocation, b: RecordLocation): number {
  if (a.pack !== b.pack) return a.pack < b.pack ? -1 : 1;
  return a.offset - b.offset;
}

/** Whether one request can fetch both, and nothing else. */
export function follows(before: RecordLocation, next: RecordLocation): boolean {
  return before.pack === next.pack && before.offset + before.length === next.offset;
}

/** Some pages of a block that are newer than its whole record; the record has them one after the other. */
export type Patch = { pages: PageMask; record: RecordLocation };
/** A block: the record that has all of it, and what is newer. */
export type BlockLocation = { whole: RecordLocation; patch: Patch | undefined };

/** What a block is made of, and how long each is when it is decoded. */
export function recordsOf({ whole, patch }: BlockLocation): { record: RecordLocation; bytes: number }[] {
  const records = [{ record: whole, bytes: BLOCK_BYTES }];
  if (patch !== undefined) records.push({ record: patch.record, bytes: countPages(patch.pages) * PAGE_BYTES });
  return records;
}

/** Makes a block what the patch says, in its place. @param pages as they were stored, one after the other */
export function applyPatch(block: Buffer, { pages: mask }: Patch, pages: Buffer): void {
  let from = 0;
  for (const { page, count } of runsOf(mask)) {
    pages.copy(block, page * PAGE_BYTES, from, from + count * PAGE_BYTES);
    from += count * PAGE_BYTES;
  }
}

/** Whether two are sure to hold the same bytes. (Where the same bytes are stored in different ways, they are not.) */
export function isSameBlock(a: BlockLocation | undefined, b: BlockLocation | undefined): boolean {
  if (a === undefined || b === undefined) return a === b;
  if (a.whole.sha256 !== b.whole.sha256) return false;
  if (a.patch === undefined || b.patch === undefined) return a.patch === b.patch;
  return a.patch.record.sha256 === b.patch.record.sha256 && isSameMask(a.patch.pages, b.patch.pages);
}

/** Compression must save an eighth, or the bytes are stored as they are: reading them back is then a plain copy. */
const WORTH_IT = 7 / 8;
const SAMPLES = 8;
const SAMPLE_BYTES = 2048;
const ZEROES = Buffer.alloc(4096);
const NOTHING = Buffer.alloc(0);

export function sha256(bytes: Uint8Array): Sha256 {
  return hash('sha256', bytes, 'hex') as Sha256;
}

/** By which a block is known: its SHA-256, and under encryption a keyed hash. */
export function blockHash(block: Uint8Array, key: DataKey | undefined): Sha256 {
  return key === undefined ? sha256(block) : key.hash(block);
}

/** Whether a block is all zeroes; looks at no more than it must. */
export function isZero(block: Buffer): boolean {
  for (let at = 0; at < block.length; at += ZEROES.length) {
    if (
      block.compare(
        ZEROES,
        0,
        Math.min(ZEROES.length, block.length - at),
        at,
        Math.min(at + ZEROES.length, block.length),
      ) !== 0
    ) {
      return false;
    }
  }
  return true;
}

/** A record made ready for a pack, before it is sealed. */
export type Encoded = { encoding: typeof ENCODING.PLAIN | typeof ENCODING.ZSTD; stored: Buffer };

/** Runs on the thread pool. @returns the block itself where compression does not pay; or what may be given back */
export async function encodeBlock(block: Buffer): Promise<Encoded> {
  if (!seemsCompressible(block)) return { encoding: ENCODING.PLAIN, stored: block };
  const room = roomFor(compressionRoom(block.length));
  const length = await compressInto(room, block);
  const encoded = chooseEncoding(block, room.subarray(0, length));
  if (encoded.stored === block) giveBack(room);
  return encoded;
}

let ownRoom: Buffer | undefined;

/** The same, on the thread that calls: what it returns is there until the next call. */
export function encodeBlockNow(block: Buffer): Encoded {
  if (!seemsCompressible(block)) return { encoding: ENCODING.PLAIN, stored: block };
  ownRoom ??= Buffer.allocUnsafeSlow(compressionRoom(BLOCK_BYTES));
  return chooseEncoding(block, ownRoom.subarray(0, compressNow(ownRoom, block)));
}

const sample = Buffer.allocUnsafeSlow(SAMPLES * SAMPLE_BYTES);
const ofSample = Buffer.allocUnsafeSlow(compressionRoom(sample.length));

/**
 * A guess from a few pieces of a block: what is random, encrypted or compressed already looks so everywhere, and finding
 * that out from the whole block costs ten times as much.
 */
function seemsCompressible(block: Buffer): boolean {
  if (block.length <= sample.length) return true;
  const stride = block.length / SAMPLES;
  for (let index = 0; index < SAMPLES; index += 1) {
    block.copy(sample, index * SAMPLE_BYTES, index * stride, index * stride + SAMPLE_BYTES);
  }
  return compressNow(ofSample, sample) < sample.length;
}

function chooseEncoding(block: Buffer, smaller: Buffer): Encoded {
  if (smaller.length > block.length * WORTH_IT) return { encoding: ENCODING.PLAIN, stored: block };
  return { encoding: ENCODING.ZSTD, stored: smaller };
}

/**
 * Seals an encoded block into its place in a pack: the key is the pack's own, the nonce the offset, which no other block
 * of the pack has.
 */
export function sealBlock(
  { encoding, stored }: Encoded,
  packKey: KeyObject,
  pack: Buffer,
  offset: number,
): { encoding: Encoding; length: number } {
  const length = sealInto(pack, offset, packKey, nonceAt(offset), stored, NOTHING);
  return { encoding: encoding === ENCODING.ZSTD ? ENCODING.SEALED_ZSTD : ENCODING.SEALED_PLAIN, length };
}

/**
 * Gives back what was stored as a record.
 * @param length of the decoded bytes: see recordsOf
 * @param key of an encrypted snapshot
 * @param room where they are to be left; in what they come in, or in a room of their own, where there is none
 * @throws CorruptBlockError when they are not the bytes that were stored: wrong bytes are never returned; WrongKeyError
 */
export async function decodeRecord(
  bytes: Buffer,
  location: RecordLocation,
  length: number,
  key: DataKey | undefined,
  where: string,
  room?: Buffer,
): Promise<Buffer> {
  const { encoding, sha256: expected } = location;
  let block: Buffer;
  switch (encoding) {
    case ENCODING.PLAIN:
      block = bytes;
      break;
    case ENCODING.ZSTD:
      block = await inflate(bytes, length, where, room);
      break;
    case ENCODING.SEALED_PLAIN:
      block = open(bytes, location, key, where);
      break;
    case ENCODING.SEALED_ZSTD: {
      const opened = open(bytes, location, key, where);
      block = await inflate(opened, length, where, room);
      giveBack(opened);
      break;
    }
    default:
      throw new CorruptBlockError(
        `${where} has encoding ${encoding satisfies never}, which this version does not know`,
      );
  }
  if (block.length !== length) throw new CorruptBlockError(`${where} is ${block.length} bytes, not ${length}`);
  const found = blockHash(block, key);
  if (found !== expected) throw new CorruptBlockError(`${where} has the hash ${found}, and should have ${expected}`);
  if (room === undefined) return block;
  // What was inflated is there already.
  if (block.buffer !== room.buffer) {
    block.copy(room);
    if (block !== bytes) giveBack(block);
  }
  return room;
}

async function inflate(bytes: Buffer, length: number, where: string, given?: Buffer): Promise<Buffer> {
  const room = given ?? roomFor(length);
  try {
    return room.subarray(0, await decompressInto(room, bytes));
  } catch (error) {
    if (room !== given) giveBack(room);
    // Whatever else went wrong says nothing of the bytes.
    if (!(error instanceof ZstdError)) throw error;
    throw new CorruptBlockError(`${where} cannot be decompressed: ${error.message}`);
  }
}

function open(bytes: Buffer, { pack, offset }: RecordLocation, key: DataKey | undefined, where: string): Buffer {
  if (key === undefined) throw new WrongKeyError(`${where} is encrypted, and its key was not given`);
  try {
    return unseal(key.packKey(pack), nonceAt(offset), bytes, NOTHING);
  } catch (error) {
    throw new CorruptBlockError(`${where}: ${(error as Error).message}`);
  }
}

function nonceAt(offset: number): Buffer {
  const nonce = Buffer.alloc(NONCE_BYTES);
  nonce.writeUIntLE(offset, 0, 6);
  return nonce;
}

/** The store gave bytes that are not what was put there. */
export class CorruptBlockError extends Error {
  override name = 'CorruptBlockError';
}
