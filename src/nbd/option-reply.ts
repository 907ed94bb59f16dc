import { MAGIC_OPTION_REPLY } from './protocol.ts';

/** @see NBD protocol, "Option reply": magic u64, option u32, type u32, length u32, data */
export function optionReply(option: number, type: number, data: Buffer = Buffer.alloc(0)): Buffer {
  const header = Buffer.alloc(20);
  header.writeBigUInt64BE(MAGIC_OPTION_REPLY, 0);
  header.writeUInt32BE(option, 8);
  header.writeUInt32BE(type, 12);
  header.writeUInt32BE(data.length, 16);
  return Buffer.concat([header, data]);
}
