import { connect, type Socket } from 'node:net';
import {
  COMMAND,
  COMMAND_FLAG,
  EXPORT_FLAG,
  HANDSHAKE_FIXED_NEWSTYLE,
  HANDSHAKE_NO_ZEROES,
  INFO,
  MAGIC_INIT,
  MAGIC_OPTION,
  MAGIC_OPTION_REPLY,
  MAGIC_REQUEST,
  MAGIC_SIMPLE_REPLY,
  OPTION,
  OPTION_REPLY,
} from './protocol.ts';

export type NbdAddress = { socketPath: string } | { host: string; port: number };

/** The server answered a request with an error of NBD's. */
export class NbdError extends Error {
  override name = 'NbdError';
  readonly number: number;
  constructor(number: number) {
    super(`the NBD server answered error ${number}`);
    this.number = number;
  }
}

type Waiting = { length: number; resolve: (data: Buffer) => void; reject: (error: Error) => void };

/**
 * A small NBD client: as many requests in flight as the caller likes, simple replies. For the demo, the benchmarks and
 * the tests; guests use their own.
 */
export class NbdClient {
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  readonly #socket: Socket;
  readonly #bytes: ByteQueue;
  readonly #waiting = new Map<bigint, Waiting>();
  #nextCookie = 1n;
  #failure: Error | undefined;

  private constructor(socket: Socket, bytes: ByteQueue, sizeBytes: number, flags: number) {
    this.#socket = socket;
    this.#bytes = bytes;
    this.sizeBytes = sizeBytes;
    this.readOnly = (flags & EXPORT_FLAG.READ_ONLY) !== 0;
  }

  /** @throws when there is no such export */
  static async connect(address: NbdAddress, exportName: string): Promise<NbdClient> {
    const socket = 'socketPath' in address ? connect(address.socketPath) : connect(address.port, address.host);
    socket.setNoDelay(true);
    const bytes = new ByteQueue(socket);
    try {
      const greeting = await bytes.take(18);
      if (greeting.readBigUInt64BE(0) !== MAGIC_INIT || greeting.readBigUInt64BE(8) !== MAGIC_OPTION) {
        throw new Error('the server does not speak newstyle NBD');
      }
      const name = Buffer.from(exportName);
      const go = Buffer.alloc(4 + 16 + 6 + name.length);
      go.writeUInt32BE(HANDSHAKE_FIXED_NEWSTYLE | HANDSHAKE_NO_ZEROES, 0);
      go.writeBigUInt64BE(MAGIC_OPTION, 4);
      go.writeUInt32BE(OPTION.GO, 12);
      go.writeUInt32BE(6 + name.length, 16);
      go.writeUInt32BE(name.length, 20);
      name.copy(go, 24);
      socket.write(go);
      const { sizeBytes, flags } = await readGoReplies(bytes);
      const client = new NbdClient(socket, bytes, sizeBytes, flags);
      void client.#receive();
      return client;
    } catch (error) {
      socket.destroy();
      throw error;
    }
  }

  read(offset: number, length: number): Promise<Buffer> {
    return this.#request(COMMAND.READ, 0, offset, length, undefined);
  }

  /** @param durable answer only when the bytes survive a power loss (FUA) */
  async write(offset: number, data: Buffer, durable = false): Promise<void> {
    await this.#request(COMMAND.WRITE, durable ? COMMAND_FLAG.FUA : 0, offset, data.length, data);
  }

  async flush(): Promise<void> {
    await this.#request(COMMAND.FLUSH, 0, 0, 0, undefined);
  }

  async trim(offset: number, length: number): Promise<void> {
    await this.#request(COMMAND.TRIM, 0, offset, length, undefined);
  }

  async writeZeroes(offset: number, length: number): Promise<void> {
    await this.#request(COMMAND.WRITE_ZEROES, 0, offset, length, undefined);
  }

  /** Says goodbye, and resolves when the connection is closed. */
  async close(): Promise<void> {
    if (this.#failure !== undefined) return;
    const closed = new Promise<void>((resolve) => this.#socket.once('close', () => resolve()));
    void this.#request(COMMAND.DISCONNECT, 0, 0, 0, undefined).catch(() => undefined);
    await closed;
  }

  /** Breaks the connection as a crashing client would. */
  destroy(): void {
    this.#socket.destroy();
  }

  #request(command: number, flags: number, offset: number, length: number, data: Buffer | undefined): Promise<Buffer> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    const cookie = this.#nextCookie++;
    const header = Buffer.alloc(28);
    header.writeUInt32BE(MAGIC_REQUEST, 0);
    header.writeUInt16BE(flags, 4);
    header.writeUInt16BE(command, 6);
    header.writeBigUInt64BE(cookie, 8);
    header.writeBigUInt64BE(BigInt(offset), 16);
    header.writeUInt32BE(length, 24);
    return new Promise((resolve, reject) => {
      this.#waiting.set(cookie, { length: command === COMMAND.READ ? length : 0, resolve, reject });
      this.#socket.write(data === undefined ? header : Buffer.concat([header, data]));
    });
  }

  async #receive(): Promise<void> {
    try {
      for (;;) {
        const header = await this.#bytes.take(16);
        if (header.readUInt32BE(0) !== MAGIC_SIMPLE_REPLY) throw new Error('the NBD stream is out of step');
        const error = header.readUInt32BE(4);
        const cookie = header.readBigUInt64BE(8);
        const waiting = this.#waiting.get(cookie);
        if (waiting === undefined) throw new Error(`the NBD server answered a request that was not made: ${cookie}`);
        this.#waiting.delete(cookie);
        if (error === 0) waiting.resolve(await this.#bytes.take(waiting.length));
        else waiting.reject(new NbdError(error));
      }
    } catch (error) {
      this.#failure = error as Error;
      this.#socket.destroy();
      for (const waiting of this.#waiting.values()) waiting.reject(this.#failure);
      this.#waiting.clear();
    }
  }
}

async function readGoReplies(bytes: ByteQueue): Promise<{ sizeBytes: number; flags: number }> {
  let found: { sizeBytes: number; flags: number } | undefined;
  for (;;) {
    const header = await bytes.take(20);
    if (header.readBigUInt64BE(0) !== MAGIC_OPTION_REPLY) throw new Error('the NBD handshake is out of step');
    const type = header.readUInt32BE(12);
    const data = await bytes.take(header.readUInt32BE(16));
    if (type === OPTION_REPLY.INFO && data.readUInt16BE(0) === INFO.EXPORT) {
      found = { sizeBytes: Number(data.readBigUInt64BE(2)), flags: data.readUInt16BE(10) };
    } else if (type === OPTION_REPLY.ACK && found !== undefined) {
      return found;
    } else if (type >= 0x80000000) {
      throw new Error(`the NBD server refuses the export: ${data.toString('utf8')}`);
    }
  }
}

/** A socket's bytes, to be taken in counts. */
class ByteQueue {
  readonly #chunks: Buffer[] = [];
  #length = 0;
  #ended: Error | undefined;
  #wake: (() => void) | undefined;

  constructor(socket: Socket) {
    socket.on('data', (chunk: Buffer) => {
      this.#chunks.push(chunk);
      this.#length += chunk.length;
      this.#wake?.();
    });
    const end = (error: Error): void => {
      this.#ended ??= error;
      this.#wake?.();
    };
    socket.on('error', end);
    socket.on('close', () => end(new Error('the NBD connection is closed')));
  }

  async take(count: number): Promise<Buffer> {
    while (this.#length < count) {
      if (this.#ended !== undefined) throw this.#ended;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      this.#wake = undefined;
    }
    this.#length -= count;
    const first = this.#chunks[0];
    if (first !== undefined && first.length > count) {
      this.#chunks[0] = first.subarray(count);
      return first.subarray(0, count);
    }
    const parts: Buffer[] = [];
    for (let missing = count; missing > 0; ) {
      const chunk = this.#chunks[0];
      if (chunk.length <= missing) {
        this.#chunks.shift();
        parts.push(chunk);
        missing -= chunk.length;
      } else {
        parts.push(chunk.subarray(0, missing));
        this.#chunks[0] = chunk.subarray(missing);
        missing = 0;
      }
    }
    return parts.length === 1 ? parts[0] : Buffer.concat(parts);
  }
}
