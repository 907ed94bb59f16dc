import { COMMAND, COMMAND_FLAG, ERROR, MAGIC_REQUEST, MAX_PAYLOAD_BYTES } from './protocol.ts';

/** A request without its payload. */
export const REQUEST_BYTES = 28;

/** One request as it came; the cookie in two halves, to be sent back as it is. */
export type Request = {
  flags: number;
  command: number;
  cookieHigh: number;
  cookieLow: number;
  offset: number;
  length: number;
};

/** @returns undefined where no request begins at `bytes[at]` @see NBD protocol, "Request message" */
export function readRequest(bytes: Buffer, at: number): Request | undefined {
  if (bytes.readUInt32BE(at) !== MAGIC_REQUEST) return undefined;
  return {
    flags: bytes.readUInt16BE(at + 4),
    command: bytes.readUInt16BE(at + 6),
    cookieHigh: bytes.readUInt32BE(at + 8),
    cookieLow: bytes.readUInt32BE(at + 12),
    offset: bytes.readUInt32BE(at + 16) * 0x1_0000_0000 + bytes.readUInt32BE(at + 20),
    length: bytes.readUInt32BE(at + 24),
  };
}

/** What client and server have agreed on. */
export type TransmissionOptions = { structuredReplies: boolean; baseAllocation: boolean; readOnly: boolean };

/** What the spec has a server refuse before anything is done. @returns 0 where there is nothing to refuse */
export function refusalOf(request: Request, sizeBytes: number, options: TransmissionOptions): number {
  const { command, flags, offset, length } = request;
  const changes = command === COMMAND.WRITE || command === COMMAND.TRIM || command === COMMAND.WRITE_ZEROES;
  if (command > COMMAND.BLOCK_STATUS) return ERROR.EINVAL;
  if ((flags & ~allowedFlags(command, options.structuredReplies)) !== 0) return ERROR.EINVAL;
  if (changes && options.readOnly) return ERROR.EPERM;
  if (command === COMMAND.FLUSH) return offset === 0 && length === 0 ? 0 : ERROR.EINVAL;
  if (length === 0) return ERROR.EINVAL;
  const carriesData = command === COMMAND.READ || command === COMMAND.WRITE;
  if (carriesData && length > MAX_PAYLOAD_BYTES) return ERROR.EINVAL;
  if (offset + length > sizeBytes) return changes ? ERROR.ENOSPC : ERROR.EINVAL;
  if (command === COMMAND.BLOCK_STATUS && !options.baseAllocation) return ERROR.EINVAL;
  return 0;
}

/** The flags that a request of a kind may have. */
function allowedFlags(command: number, structuredReplies: boolean): number {
  switch (command) {
    case COMMAND.READ:
      return COMMAND_FLAG.FUA | (structuredReplies ? COMMAND_FLAG.DF : 0);
    case COMMAND.WRITE_ZEROES:
      return COMMAND_FLAG.FUA | COMMAND_FLAG.NO_HOLE;
    case COMMAND.BLOCK_STATUS:
      return COMMAND_FLAG.FUA | COMMAND_FLAG.REQ_ONE;
    default:
      return COMMAND_FLAG.FUA;
  }
}
