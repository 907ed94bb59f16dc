import { setImmediate } from 'node:timers/promises';
import type { ExportDescription, ExportDirectory } from './export.ts';
import { transmissionFlags } from './export.ts';
import { acceptsFlags, greeting } from './greeting.ts';
import { optionReply } from './option-reply.ts';
import {
  HANDSHAKE_NO_ZEROES,
  INFO,
  MAGIC_OPTION,
  MAX_NAME_BYTES,
  MAX_PAYLOAD_BYTES,
  OPTION,
  OPTION_REPLY,
  PREFERRED_BLOCK_BYTES,
} from './protocol.ts';

const OPTION_HEADER_BYTES = 16;
const MAX_OPTION_BYTES = 64 * 1024;
/** Who looks at thousands of exports (`nbdinfo --list`) has some for each. */
const MAX_OPTIONS = 100_000;
const BASE_ALLOCATION = 'base:allocation';
/** The id by which block status replies name base:allocation. */
export const BASE_ALLOCATION_ID = 1;

/** How a handshake can go on after the bytes it was fed. */
export type HandshakeStep =
  | { kind: 'more' }
  | { kind: 'end' }
  | {
      kind: 'transmit';
      exportName: string;
      structuredReplies: boolean;
      baseAllocation: boolean;
      /** The answer to the client's last option; to be sent once the export is open. */
      reply: Buffer;
      /** Bytes that came after that option. */
      rest: Buffer;
    };

/**
 * The option haggling of fixed newstyle, as a state machine: bytes in, replies out. It ends when the client names an
 * export (GO, EXPORT_NAME), gives up (ABORT), or breaks the protocol.
 *
 * @see NBD protocol, "Fixed newstyle negotiation"
 */
export class Handshake {
  readonly #exports: ExportDirectory;
  readonly #send: (bytes: Buffer) => Promise<void> | undefined;
  /** Until the client has taken what was sent. */
  #taken: Promise<void> | undefined;
  #input: Buffer = Buffer.alloc(0);
  #clientFlags: number | undefined;
  #structuredReplies = false;
  /** The export for which base:allocation was chosen: a context counts only for the export it was asked for. */
  #allocationFor: string | undefined;
  #options = 0;

  /**
   * @param send tells, where the client is slow to take what it asked for, when it has: until then nothing more is done for it
   * @param clientFlags of a client that was greeted already
   */
  constructor(exports: ExportDirectory, send: (bytes: Buffer) => Promise<void> | undefined, clientFlags?: number) {
    this.#clientFlags = clientFlags;
    this.#exports = exports;
    this.#send = send;
  }

  greet(): void {
    this.#give(greeting());
  }

  /** Takes what came from the client; must not be called again before the promise of the last call resolved. */
  async feed(bytes: Buffer): Promise<HandshakeStep> {
    this.#input = Buffer.concat([this.#input, bytes]);
    if (this.#clientFlags === undefined) {
      if (this.#input.length < 4) return { kind: 'more' };
      const flags = this.#input.readUInt32BE(0);
      this.#input = this.#input.subarray(4);
      if (!acceptsFlags(flags)) return { kind: 'end' };
      this.#clientFlags = flags;
    }
    while (this.#input.length >= OPTION_HEADER_BYTES) {
      if (this.#input.readBigUInt64BE(0) !== MAGIC_OPTION) return { kind: 'end' };
      const option = this.#input.readUInt32BE(8);
      const length = this.#input.readUInt32BE(12);
      if (length > MAX_OPTION_BYTES) return { kind: 'end' };
      if (this.#input.length < OPTION_HEADER_BYTES + length) return { kind: 'more' };
      const data = this.#input.subarray(OPTION_HEADER_BYTES, OPTION_HEADER_BYTES + length);
      this.#input = this.#input.subarray(OPTION_HEADER_BYTES + length);
      this.#options += 1;
      if (this.#options > MAX_OPTIONS) return { kind: 'end' };
      const step = await this.#answer(option, data);
      if (step !== undefined) return step;
      await this.#taken;
      // Nobody waits for answers to a thousand options in one piece.
      if (this.#input.length > 0) await setImmediate();
    }
    return { kind: 'more' };
  }

  async #answer(option: number, data: Buffer): Promise<HandshakeStep | undefined> {
    switch (option) {
      case OPTION.EXPORT_NAME:
        return this.#exportName(data.toString('utf8'));
      case OPTION.ABORT:
        this.#reply(option, OPTION_REPLY.ACK);
        return { kind: 'end' };
      case OPTION.LIST:
        return this.#list(data);
      case OPTION.INFO:
      case OPTION.GO:
        return this.#go(option, data);
      case OPTION.STRUCTURED_REPLY:
        if (data.length > 0) return this.#refuse(option, OPTION_REPLY.ERR_INVALID, 'this option takes no data');
        this.#structuredReplies = true;
        this.#reply(option, OPTION_REPLY.ACK);
        return undefined;
      case OPTION.LIST_META_CONTEXT:
      case OPTION.SET_META_CONTEXT:
        return this.#metaContext(option, data);
      default:
        return this.#refuse(option, OPTION_REPLY.ERR_UNSUP, `option ${option} is not supported`);
    }
  }

  /** The oldest way to choose an export: it has no error reply, so an unknown name ends the connection. */
  async #exportName(name: string): Promise<HandshakeStep> {
    const found = await this.#exports.describe(name);
    if (found === undefined) return { kind: 'end' };
    const noZeroes = ((this.#clientFlags ?? 0) & HANDSHAKE_NO_ZEROES) !== 0;
    const reply = Buffer.alloc(noZeroes ? 10 : 134);
    reply.writeBigUInt64BE(BigInt(found.sizeBytes), 0);
    reply.writeUInt16BE(transmissionFlags(found.readOnly), 8);
    return this.#transmit(name, reply);
  }

  async #list(data: Buffer): Promise<undefined> {
    if (data.length > 0) return this.#refuse(OPTION.LIST, OPTION_REPLY.ERR_INVALID, 'LIST takes no data');
    const names = await this.#exports.list();
    const replies = names.map((name) => optionReply(OPTION.LIST, OPTION_REPLY.SERVER, lengthPrefixed(name)));
    this.#give(Buffer.concat([...replies, optionReply(OPTION.LIST, OPTION_REPLY.ACK)]));
  }

  async #go(option: number, data: Buffer): Promise<HandshakeStep | undefined> {
    const name = data.length >= 6 ? data.readUInt32BE(0) : Number.POSITIVE_INFINITY;
    if (name > MAX_NAME_BYTES || data.length < 6 + name) {
      return this.#refuse(option, OPTION_REPLY.ERR_INVALID, 'the lengths in the option do not fit together');
    }
    const wanted = data.readUInt16BE(4 + name);
    if (data.length !== 6 + name + 2 * wanted) {
      return this.#refuse(option, OPTION_REPLY.ERR_INVALID, 'the lengths in the option do not fit together');
    }
    const exportName = data.toString('utf8', 4, 4 + name);
    const found = await this.#exports.describe(exportName);
    if (found === undefined) {
      return this.#refuse(
        option,
        OPTION_REPLY.ERR_UNKNOWN,
        `there is no export '${exportName}': a volume must be attached to a running instance`,
      );
    }
    const asked = new Set<number>();
    for (let index = 0; index < wanted; index += 1) asked.add(data.readUInt16BE(6 + name + 2 * index));
    const replies = exportInfos(found, asked).map((info) => optionReply(option, OPTION_REPLY.INFO, info));
    replies.push(optionReply(option, OPTION_REPLY.ACK));
    if (option === OPTION.GO) return this.#transmit(exportName, Buffer.concat(replies));
    this.#give(Buffer.concat(replies));
    return undefined;
  }

  async #metaContext(option: number, data: Buffer): Promise<undefined> {
    if (!this.#structuredReplies) {
      return this.#refuse(option, OPTION_REPLY.ERR_INVALID, 'structured replies must be negotiated first');
    }
    const parsed = parseMetaContexts(data);
    if (parsed === undefined) {
      return this.#refuse(option, OPTION_REPLY.ERR_INVALID, 'the lengths in the option do not fit together');
    }
    if (option === OPTION.SET_META_CONTEXT) this.#allocationFor = undefined;
    if ((await this.#exports.describe(parsed.exportName)) === undefined) {
      return this.#refuse(option, OPTION_REPLY.ERR_UNKNOWN, `there is no export '${parsed.exportName}'`);
    }
    const listing = option === OPTION.LIST_META_CONTEXT;
    const matches = parsed.queries.some((query) => query === BASE_ALLOCATION || (listing && query === 'base:'));
    if (matches || (listing && parsed.queries.length === 0)) {
      const context = Buffer.alloc(4 + BASE_ALLOCATION.length);
      context.writeUInt32BE(listing ? 0 : BASE_ALLOCATION_ID, 0);
      context.write(BASE_ALLOCATION, 4, 'latin1');
      this.#reply(option, OPTION_REPLY.META_CONTEXT, context);
      if (!listing) this.#allocationFor = parsed.exportName;
    }
    this.#reply(option, OPTION_REPLY.ACK);
  }

  #transmit(exportName: string, reply: Buffer): HandshakeStep {
    const baseAllocation = this.#allocationFor === exportName;
    return {
      kind: 'transmit',
      exportName,
      structuredReplies: this.#structuredReplies,
      baseAllocation,
      reply,
      rest: this.#input,
    };
  }

  #refuse(option: number, error: number, message: string): undefined {
    this.#reply(option, error, Buffer.from(message, 'utf8'));
  }

  #reply(option: number, type: number, data?: Buffer): void {
    this.#give(optionReply(option, type, data));
  }

  #give(bytes: Buffer): void {
    this.#taken = this.#send(bytes) ?? this.#taken;
  }
}

/** EXPORT and BLOCK_SIZE are always told (a server may tell more than was asked); the others when asked for. */
function exportInfos(found: ExportDescription, asked: Set<number>): Buffer[] {
  const size = Buffer.alloc(12);
  size.writeUInt16BE(INFO.EXPORT, 0);
  size.writeBigUInt64BE(BigInt(found.sizeBytes), 2);
  size.writeUInt16BE(transmissionFlags(found.readOnly), 10);
  const blockSize = Buffer.alloc(14);
  blockSize.writeUInt16BE(INFO.BLOCK_SIZE, 0);
  blockSize.writeUInt32BE(1, 2);
  blockSize.writeUInt32BE(PREFERRED_BLOCK_BYTES, 6);
  blockSize.writeUInt32BE(MAX_PAYLOAD_BYTES, 10);
  const infos: Buffer[] = [size, blockSize];
  if (asked.has(INFO.NAME)) infos.push(textInfo(INFO.NAME, found.name));
  if (asked.has(INFO.DESCRIPTION)) infos.push(textInfo(INFO.DESCRIPTION, found.description));
  return infos;
}

function textInfo(type: number, text: string): Buffer {
  const info = Buffer.alloc(2 + Buffer.byteLength(text));
  info.writeUInt16BE(type, 0);
  info.write(text, 2, 'utf8');
  return info;
}

function lengthPrefixed(text: string): Buffer {
  const bytes = Buffer.alloc(4 + Buffer.byteLength(text));
  bytes.writeUInt32BE(bytes.length - 4, 0);
  bytes.write(text, 4, 'utf8');
  return bytes;
}

function parseMetaContexts(data: Buffer): { exportName: string; queries: string[] } | undefined {
  let at = 0;
  const take = (): string | undefined => {
    if (at + 4 > data.length) return undefined;
    const length = data.readUInt32BE(at);
    if (length > MAX_NAME_BYTES || at + 4 + length > data.length) return undefined;
    const text = data.toString('utf8', at + 4, at + 4 + length);
    at += 4 + length;
    return text;
  };
  const exportName = take();
  if (exportName === undefined || at + 4 > data.length) return undefined;
  const count = data.readUInt32BE(at);
  at += 4;
  const queries: string[] = [];
  for (let index = 0; index < count; index += 1) {
    const query = take();
    if (query === undefined) return undefined;
    queries.push(query);
  }
  return at === data.length ? { exportName, queries } : undefined;
}
