import { hash } from 'node:crypto';
import { promisify } from 'node:util';
import { constants, zstdCompress, zstdDecompress } from 'node:zlib';
import { BLOCK_BYTES, type Sha256 } from '../types/units.ts';

const compress = promisify(zstdCompress);
const decompress = promisify(zstdDecompress);

/** How a block's bytes lie in a pack. The numbers are part of the format (docs/format.md). */
export const ENCODING = { PLAIN: 0, ZSTD: 1 } as const;
export type Encoding = (typeof ENCODING)[keyof typeof ENCODING];

/** Compression must save an eighth, or the block is stored as it is: reading it back is then a plain copy. */
const WORTH_IT_BYTES = BLOCK_BYTES - BLOCK_BYTES / 8;
const OPTIONS = { params: { [constants.ZSTD_c_compressionLevel]: 1 } };
const ZEROES = Buffer.alloc(4096);

export function sha256(bytes: Uint8Array): Sha256 {
  return hash('sha256', bytes, 'hex') as Sha256;
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

/** Runs on the thread pool. @returns the block itself where compression does not pay */
export async function encodeBlock(block: Buffer): Promise<{ encoding: Encoding; stored: Buffer }> {
  const smaller = await compress(block, OPTIONS);
  if (smaller.length > WORTH_IT_BYTES) return { encoding: ENCODING.PLAIN, stored: block };
  return { encoding: ENCODING.ZSTD, stored: smaller };
}

/**
 * Gives back a block's 512 KiB.
 * @throws CorruptBlockError when they are not the bytes that were stored: wrong bytes are never returned
 */
export async function decodeBlock(
  stored: Buffer,
  encoding: Encoding,
  expected: Sha256,
  where: string,
): Promise<Buffer> {
  let block: Buffer;
  switch (encoding) {
    case ENCODING.PLAIN:
      block = stored;
      break;
    case ENCODING.ZSTD:
      block = await decompress(stored, { maxOutputLength: BLOCK_BYTES }).catch((error: Error) => {
        throw new CorruptBlockError(`${where} cannot be decompressed: ${error.message}`);
      });
      break;
    default:
      throw new CorruptBlockError(
        `${where} has encoding ${encoding satisfies never}, which this version does not know`,
      );
  }
  if (block.length !== BLOCK_BYTES)
    throw new CorruptBlockError(`${where} is ${block.length} bytes, not ${BLOCK_BYTES}`);
  const found = sha256(block);
  if (found !== expected) throw new CorruptBlockError(`${where} has SHA-256 ${found}, and should have ${expected}`);
  return block;
}

/** The store gave bytes that are not what was put there. */
export class CorruptBlockError extends Error {
  override name = 'CorruptBlockError';
}
