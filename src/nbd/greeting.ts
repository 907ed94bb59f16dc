import { HANDSHAKE_FIXED_NEWSTYLE, HANDSHAKE_NO_ZEROES, MAGIC_INIT, MAGIC_OPTION } from './protocol.ts';

/** What a server says first: who it is, and that it haggles in the fixed newstyle. */
export function greeting(): Buffer {
  const bytes = Buffer.alloc(18);
  bytes.writeBigUInt64BE(MAGIC_INIT, 0);
  bytes.writeBigUInt64BE(MAGIC_OPTION, 8);
  bytes.writeUInt16BE(HANDSHAKE_FIXED_NEWSTYLE | HANDSHAKE_NO_ZEROES, 16);
  return bytes;
}

/** A flag that we do not know changes the protocol in a way we do not know: the spec says to hang up. */
export function acceptsFlags(clientFlags: number): boolean {
  const known = HANDSHAKE_FIXED_NEWSTYLE | HANDSHAKE_NO_ZEROES;
  return (clientFlags & ~known) === 0 && (clientFlags & HANDSHAKE_FIXED_NEWSTYLE) !== 0;
}
