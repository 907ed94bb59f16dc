import { ERROR, MAGIC_SIMPLE_REPLY, MAGIC_STRUCTURED_REPLY } from './protocol.ts';
import type { Request } from './request.ts';

export const SIMPLE_REPLY_BYTES = 16;
export const CHUNK_HEADER_BYTES = 20;

export function writeSimpleHeader(buffer: Buffer, at: number, request: Request, error: number): void {
  buffer.writeUInt32BE(MAGIC_SIMPLE_REPLY, at);
  buffer.writeUInt32BE(error, at + 4);
  buffer.writeUInt32BE(request.cookieHigh, at + 8);
  buffer.writeUInt32BE(request.cookieLow, at + 12);
}

export function writeChunkHeader(
  buffer: Buffer,
  at: number,
  flags: number,
  type: number,
  request: Request,
  length: number,
): void {
  buffer.writeUInt32BE(MAGIC_STRUCTURED_REPLY, at);
  buffer.writeUInt16BE(flags, at + 4);
  buffer.writeUInt16BE(type, at + 6);
  buffer.writeUInt32BE(request.cookieHigh, at + 8);
  buffer.writeUInt32BE(request.cookieLow, at + 12);
  buffer.writeUInt32BE(length, at + 16);
}

export function writeOffset(buffer: Buffer, at: number, offset: number): void {
  buffer.writeUInt32BE(Math.floor(offset / 0x1_0000_0000), at);
  buffer.writeUInt32BE(offset % 0x1_0000_0000, at + 4);
}

/** An error of the world as NBD's numbers; what a client cannot make sense of is EIO. */
export function errorNumber(failure: unknown): number {
  const code = (failure as NodeJS.ErrnoException).code;
  switch (code) {
    case 'ENOSPC':
    case 'EDQUOT':
      return ERROR.ENOSPC;
    case 'EPERM':
      return ERROR.EPERM;
    default:
      return ERROR.EIO;
  }
}
