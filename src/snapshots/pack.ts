import { type KeyObject, randomBytes } from 'node:crypto';
import { crc32 } from 'node:zlib';
import type { DataKey } from '../encryption/data-key.ts';
import { alignedBuffer } from '../objects/direct-write.ts';
import { copyWhole } from '../types/memory.ts';
import type { Sha256 } from '../types/units.ts';
import { type Encoded, type Encoding, type PackId, type RecordLocation, sealBlock } from './block-encoding.ts';

/** A pack is closed when it holds this much: one PUT for dozens of blocks. */
export const PACK_TARGET_BYTES = 16 * 1024 * 1024;

const HEADER_MAGIC = 'CCPACK\0\x01';
const FOOTER_MAGIC = 'CCPEND\0\x01';
const HEADER_BYTES = 32;
const ENTRY_BYTES = 48;
const FOOTER_BYTES = 16;

export function packKey(id: PackId): string {
  return `packs/${id.slice(0, 2)}/${id}`;
}

/** Room for a pack's blocks: the last few (a batch of eight) may go beyond the target. */
const PACK_ROOM_BYTES = PACK_TARGET_BYTES + 5 * 1024 * 1024;

/** A room for packs, one after the other; what is in it can go to a disk without being copied. */
export function newPackRoom(): Buffer {
  return alignedBuffer(PACK_ROOM_BYTES);
}

/** Gathers encoded blocks into one object: header, blocks, index, footer (docs/format.md). */
export class PackBuilder {
  readonly id: PackId = randomBytes(16).toString('hex') as PackId;
  readonly #bytes: Buffer;
  readonly #entries: RecordLocation[] = [];
  readonly #key: KeyObject | undefined;
  #end = HEADER_BYTES;

  /**
   * @param key under which the blocks are sealed; undefined leaves them as they are
   * @param room the pack's until it is stored: see newPackRoom; less will do for a pack of few blocks
   */
  constructor(key: DataKey | undefined, room: Buffer) {
    this.#key = key?.packKey(this.id);
    this.#bytes = room;
    room.fill(0, 0, HEADER_BYTES);
    room.write(HEADER_MAGIC, 0, 'latin1');
    room.write(this.id, 8, 'hex');
  }

  get isFull(): boolean {
    return this.#end >= PACK_TARGET_BYTES;
  }

  /**
   * Copies a block's bytes in; there is room for eight as long as the pack is not full.
   * @param sha256 see blockHash
   */
  add(encoded: Encoded, sha256: Sha256): RecordLocation {
    // No encoding makes nothing of a block: the bytes are lost, and whoever lost them must not name them.
    if (encoded.stored.length === 0) throw new Error(`a block of pack ${this.id} has no bytes`);
    const { encoding, length } = this.#put(encoded);
    const location = { pack: this.id, offset: this.#end, length, encoding, sha256 };
    this.#entries.push(location);
    this.#end += length;
    return location;
  }

  #put({ encoding, stored }: Encoded): { encoding: Encoding; length: number } {
    if (this.#key !== undefined) return sealBlock({ encoding, stored }, this.#key, this.#bytes, this.#end);
    copyWhole(stored, this.#bytes, this.#end);
    return { encoding, length: stored.length };
  }

  /** The object's bytes, in pieces. */
  finish(): Buffer[] {
    const index = Buffer.alloc(this.#entries.length * ENTRY_BYTES);
    for (const [number, entry] of this.#entries.entries()) {
      const at = number * ENTRY_BYTES;
      index.write(entry.sha256, at, 'hex');
      index.writeUInt32LE(entry.offset, at + 32);
      index.writeUInt32LE(entry.length, at + 36);
      index.writeUInt8(entry.encoding, at + 40);
    }
    const footer = Buffer.alloc(FOOTER_BYTES);
    footer.writeUInt32LE(this.#entries.length, 0);
    footer.writeUInt32LE(crc32(index), 4);
    footer.write(FOOTER_MAGIC, 8, 'latin1');
    return [this.#bytes.subarray(0, this.#end), index, footer];
  }
}

/** How long a pack of blocks is that are stored in so many bytes each. */
export function packBytes(lengths: readonly number[]): number {
  return lengths.reduce((sum, length) => sum + length + ENTRY_BYTES, HEADER_BYTES + FOOTER_BYTES);
}

/** Reads a pack's own index. @throws when the object is not a whole pack */
export function readPackIndex(pack: Buffer): RecordLocation[] {
  const whole = pack.length >= HEADER_BYTES + FOOTER_BYTES;
  if (!whole || pack.toString('latin1', 0, 8) !== HEADER_MAGIC) throw new Error('not a version 1 pack of cleancut');
  const footer = pack.length - FOOTER_BYTES;
  const count = pack.readUInt32LE(footer);
  const index = pack.subarray(footer - count * ENTRY_BYTES, footer);
  if (pack.toString('latin1', footer + 8) !== FOOTER_MAGIC || index.length !== count * ENTRY_BYTES) {
    throw new Error('the pack is cut short');
  }
  if (crc32(index) !== pack.readUInt32LE(footer + 4)) throw new Error("the pack's index is damaged");
  const id = pack.toString('hex', 8, 24) as PackId;
  return Array.from({ length: count }, (_, number) => {
    const at = number * ENTRY_BYTES;
    return {
      pack: id,
      offset: index.readUInt32LE(at + 32),
      length: index.readUInt32LE(at + 36),
      encoding: index.readUInt8(at + 40) as Encoding,
      sha256: index.toString('hex', at, at + 32) as Sha256,
    };
  });
}
