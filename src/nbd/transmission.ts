import type { Socket } from 'node:net';
import type { OpenVolume, ReadNow } from '../volumes/engine.ts';
import { Connection } from './connection.ts';
import { DiskReads } from './disk-reads.ts';
import { BASE_ALLOCATION_ID } from './handshake.ts';
import { emptyWhenIdle } from './idle-memory.ts';
import { type IoCounters, observeLatency } from './io-counters.ts';
import { lookAgain, pollOn, stayAwake } from './polling.ts';
import { ALLOCATION_HOLE, ALLOCATION_ZERO, CHUNK, CHUNK_DONE, COMMAND, COMMAND_FLAG } from './protocol.ts';
import { ReceiveBuffer } from './receive-buffer.ts';
import {
  CHUNK_HEADER_BYTES,
  errorNumber,
  SIMPLE_REPLY_BYTES,
  writeChunkHeader,
  writeOffset,
  writeSimpleHeader,
} from './reply.ts';
import { ReplyBuffer } from './reply-buffer.ts';
import { REQUEST_BYTES, type Request, readRequest, refusalOf, type TransmissionOptions } from './request.ts';

const MAX_EXTENTS = 2048;
const MOST_AHEAD = 64;
const LARGE_READ_BYTES = 128 * 1024;
const CACHE_PIECE_BYTES = 1024 * 1024;
const NO_PAYLOAD = Buffer.alloc(0);
/** A client that sends without reading its answers, or while writes are held, is not read from past these. */
const MAX_UNSENT_BYTES = 8 * 1024 * 1024;
const MAX_WAITING_REQUESTS = 512;
const MAX_WAITING_BYTES = 64 * 1024 * 1024;

/**
 * The transmission phase of one connection: requests in, replies out, in the order in which they are done.
 *
 * A request that need not wait is done and answered in the turn that brought it: one pread or pwrite, and one socket
 * write for all replies of the turn. @see NBD protocol, "Transmission phase"
 */
export class Transmission {
  readonly #connection: Connection;
  readonly #incoming = new ReceiveBuffer();
  readonly #export: OpenVolume;
  readonly #options: TransmissionOptions;
  readonly #replies: ReplyBuffer;
  readonly #counters: IoCounters;
  /** Payload bytes of a refused write that are still to come: read past, not kept. */
  #skip = 0;
  #waitingRequests = 0;
  #waitingBytes = 0;
  /** It has said good-bye: what it still waits for is answered, then the connection ends. */
  #leaving = false;
  #ended = false;
  /** Requests that this turn has done and answered. */
  #doneThisTurn = 0;
  #requests = 0;
  #askingOneByOne = false;
  readonly #diskReads: DiskReads;
  readonly #settling: (() => void)[] = [];
  readonly closed: Promise<void>;
  /** Whether nobody takes answers any more: a detach, or the server's end, must not wait for gigabytes to be zeroed. */
  readonly #isGone = (): boolean => this.#ended;

  constructor(socket: Socket, target: OpenVolume, options: TransmissionOptions, counters: IoCounters) {
    this.#export = target;
    this.#options = options;
    this.#counters = counters;
    this.#connection = new Connection(
      socket,
      this.#incoming,
      () => this.#receive(),
      () => this.#resumeIfRoom(),
    );
    this.#replies = new ReplyBuffer(this.#connection);
    this.#diskReads = new DiskReads(
      target,
      (request) => this.#readNow(request) === 'done',
      (request) => this.#readByItself(request),
      () => this.#replies.flush(),
    );
    this.closed = this.#connection.closed;
    emptyWhenIdle([this.#incoming, this.#replies], this.closed);
    void this.closed.then(() => {
      this.#ended = true;
    });
  }

  /** Sends the handshake's last answer, takes the bytes that came with it, and goes. */
  start(reply: Buffer, rest: Buffer): void {
    this.#connection.send(reply, reply.length);
    if (rest.length > 0) {
      this.#incoming.copyIn(rest);
      this.#turn();
    }
    this.#resumeIfRoom();
  }

  /** Ends the connection: its export is gone. */
  end(): void {
    this.#ended = true;
    this.#connection.destroy();
  }

  /**
   * Resolves when the connection is closed and nothing that it asked for is still under way: a volume that goes to
   * another client must not be written to by a request of the last one that was long on the road.
   */
  async settled(): Promise<void> {
    await this.closed;
    if (this.#waitingRequests > 0) await new Promise<void>((resolve) => this.#settling.push(resolve));
  }

  /** Bytes have come by way of the event loop. */
  #receive(): void {
    // What the event loop brings is the beginning; the rest is taken where it is to lie.
    this.#connection.poll();
    this.#turn();
    pollOn(this);
  }

  /** Takes what has come meanwhile, and does it. @returns whether there was anything */
  poll(): boolean {
    if (!this.#connection.poll()) return false;
    this.#turn();
    return true;
  }

  /** Whether the client sends one request and waits for its answer: then the next one comes soon after. */
  get isAskingOneByOne(): boolean {
    return this.#askingOneByOne;
  }

  /** Does all requests that are here in whole, and answers those that need not wait in one send. */
  #turn(): void {
    const begun = performance.now();
    const requests = this.#requests;
    const incoming = this.#incoming;
    if (this.#export.savesOldPages && this.#skip === 0)
      this.#saveAhead(incoming.bytes, incoming.start, incoming.length);
    // As many as there is room to answer: a piece of what a client sends may ask for a thousand times as much.
    while (incoming.length > 0 && !this.#ended && !this.#leaving && !this.#isFull()) {
      if (this.#skip > 0) {
        const skipped = Math.min(this.#skip, incoming.length);
        this.#skip -= skipped;
        incoming.consume(skipped);
        continue;
      }
      if (incoming.length < REQUEST_BYTES) break;
      const missing = this.#begin(incoming.bytes, incoming.start);
      if (missing > 0) {
        incoming.makeRoom(missing);
        break;
      }
    }
    if (this.#ended || this.#leaving) incoming.consume(incoming.length);
    incoming.makeRoom(incoming.length + 1);
    this.#replies.flush();
    this.#askingOneByOne = this.#requests === requests + 1 && incoming.length === 0;
    if (this.#doneThisTurn > 0) {
      // All answers of a turn leave together: each request took as long as the turn.
      observeLatency(this.#counters, performance.now() - begun, this.#doneThisTurn);
      this.#doneThisTurn = 0;
    }
    if (this.#isFull()) this.#connection.pause();
  }

  /** Tells the volume of all writes that are here in whole, so that it need not save old pages for each by itself. */
  #saveAhead(bytes: Buffer, start: number, length: number): void {
    const end = start + length;
    const ranges: number[] = [];
    for (let at = start; at + REQUEST_BYTES <= end && ranges.length < 2 * MOST_AHEAD; at += REQUEST_BYTES) {
      const request = readRequest(bytes, at);
      if (request === undefined) break;
      if (request.command !== COMMAND.WRITE) continue;
      at += request.length;
      if (at + REQUEST_BYTES > end || refusalOf(request, this.#export.sizeBytes, this.#options) !== 0) break;
      ranges.push(request.offset, request.length);
    }
    if (ranges.length > 2) this.#export.saveAhead(ranges);
  }

  /** Does the request that begins at `bytes[at]`. @returns 0; of a write that is not here in whole, its length in all */
  #begin(bytes: Buffer, at: number): number {
    const request = readRequest(bytes, at);
    if (request === undefined) {
      // Out of step: nothing that follows can be trusted to be a request.
      this.end();
      return 0;
    }
    if (request.command !== COMMAND.WRITE) {
      this.#incoming.consume(REQUEST_BYTES);
      this.#requests += 1;
      this.#execute(request, NO_PAYLOAD);
      return 0;
    }
    const error = refusalOf(request, this.#export.sizeBytes, this.#options);
    if (error !== 0) {
      this.#incoming.consume(REQUEST_BYTES);
      this.#requests += 1;
      this.#skip = request.length;
      this.#fail(request, error);
      return 0;
    }
    const whole = REQUEST_BYTES + request.length;
    if (this.#incoming.length < whole) return whole;
    const payload = bytes.subarray(at + REQUEST_BYTES, at + whole);
    this.#requests += 1;
    // A write that waits keeps its bytes; these lie where the next requests will.
    this.#execute(request, this.#export.writesMayWait ? Buffer.from(payload) : payload);
    this.#incoming.consume(whole);
    return 0;
  }

  #execute(request: Request, payload: Buffer): void {
    if (request.command === COMMAND.DISCONNECT) {
      this.#leaving = true;
      this.#leaveIfDone();
      return;
    }
    const error = request.command === COMMAND.WRITE ? 0 : refusalOf(request, this.#export.sizeBytes, this.#options);
    if (error !== 0) {
      this.#fail(request, error);
      return;
    }
    try {
      const waiting = this.#perform(request, payload);
      if (waiting === undefined) this.#doneThisTurn += 1;
      else this.#wait(request, waiting);
    } catch (failure) {
      this.#fail(request, errorNumber(failure));
    }
  }

  /** @returns a promise where the request must wait; else it is done and answered */
  #perform(request: Request, payload: Buffer): Promise<void> | undefined {
    const { offset, length } = request;
    switch (request.command) {
      case COMMAND.READ:
        return this.#read(request);
      case COMMAND.WRITE: {
        this.#counters.writes += 1;
        this.#counters.writtenBytes += length;
        return this.#answerAfter(request, this.#export.write([payload], length, offset));
      }
      case COMMAND.FLUSH:
        this.#counters.flushes += 1;
        return stayAwake(this, this.#export.flush()).then(() => this.#succeed(request));
      case COMMAND.TRIM:
        return this.#answerAfter(request, this.#export.discard(offset, length, this.#isGone));
      case COMMAND.WRITE_ZEROES: {
        const keepAllocated = (request.flags & COMMAND_FLAG.NO_HOLE) !== 0;
        return this.#answerAfter(request, this.#export.zero(offset, length, keepAllocated, this.#isGone));
      }
      case COMMAND.CACHE:
        return this.#cache(request);
      case COMMAND.BLOCK_STATUS:
        return this.#blockStatus(request);
      default:
        throw new Error(`command ${request.command} passed the checks`);
    }
  }

  #read(request: Request): Promise<void> | undefined {
    this.#counters.reads += 1;
    this.#counters.readBytes += request.length;
    // Of a large range some is likely to be in the store: no room for it is made in vain.
    if (this.#export.isPartlyRemote && request.length > LARGE_READ_BYTES) return this.#readByItself(request);
    const found = this.#readNow(request);
    if (found === 'done') return undefined;
    if (found === 'on disk') {
      const isAlone = this.#askingOneByOne && this.#waitingRequests === 0;
      if (isAlone && lookAgain(() => this.#readNow(request) === 'done')) return undefined;
      return this.#diskReads.wait(request);
    }
    return this.#readByItself(request);
  }

  /** Into a buffer of its own: the shared room must be filled this turn, and these bytes may come later. */
  #readByItself(request: Request): Promise<void> | undefined {
    const { offset, length } = request;
    const headerBytes = this.#readHeaderBytes();
    const own = Buffer.allocUnsafeSlow(headerBytes + length);
    const answer = (): void => {
      this.#writeReadHeader(request, own, 0);
      this.#replies.flush();
      if (!this.#ended) this.#connection.send(own, own.length);
    };
    const waiting = this.#export.read(own, headerBytes, length, offset);
    if (waiting !== undefined) return waiting.then(answer);
    answer();
    return undefined;
  }

  /** Reads into the room for replies, and answers, where nothing must be waited for. */
  #readNow(request: Request): ReadNow {
    const headerBytes = this.#readHeaderBytes();
    const room = headerBytes + request.length;
    const { buffer, start } = this.#replies.reserve(room);
    let found: ReadNow | undefined;
    try {
      found = this.#export.readNow(buffer, start + headerBytes, request.length, request.offset);
      return found;
    } finally {
      if (found === 'done') this.#writeReadHeader(request, buffer, start);
      else this.#replies.unreserve(room);
    }
  }

  #readHeaderBytes(): number {
    return this.#options.structuredReplies ? CHUNK_HEADER_BYTES + 8 : SIMPLE_REPLY_BYTES;
  }

  #writeReadHeader(request: Request, buffer: Buffer, start: number): void {
    if (this.#options.structuredReplies) {
      writeChunkHeader(buffer, start, CHUNK_DONE, CHUNK.OFFSET_DATA, request, 8 + request.length);
      writeOffset(buffer, start + CHUNK_HEADER_BYTES, request.offset);
    } else {
      writeSimpleHeader(buffer, start, request, 0);
    }
  }

  /** Brings the range near: for a restored volume, from the object store; for a local one there is nothing to do. */
  #cache(request: Request): Promise<void> | undefined {
    if (!this.#export.isPartlyRemote) {
      this.#reserveSuccess(request);
      return undefined;
    }
    const piece = Buffer.allocUnsafe(keptBytes(request));
    const fetch = async (): Promise<void> => {
      for (let done = 0; done < request.length && this.#export.isPartlyRemote; done += piece.length) {
        await this.#export.read(piece, 0, Math.min(piece.length, request.length - done), request.offset + done);
        // What is near already is read without a wait, and the range may be 4 GiB.
        await new Promise(setImmediate);
      }
      this.#succeed(request);
    };
    return fetch();
  }

  #blockStatus(request: Request): Promise<void> | undefined {
    const most = (request.flags & COMMAND_FLAG.REQ_ONE) !== 0 ? 1 : MAX_EXTENTS;
    const answer = (extents: { length: number; hole: boolean }[]): void => {
      const payload = 4 + 8 * extents.length;
      const { buffer, start } = this.#replies.reserve(CHUNK_HEADER_BYTES + payload);
      writeChunkHeader(buffer, start, CHUNK_DONE, CHUNK.BLOCK_STATUS, request, payload);
      let at = buffer.writeUInt32BE(BASE_ALLOCATION_ID, start + CHUNK_HEADER_BYTES);
      for (const extent of extents) {
        at = buffer.writeUInt32BE(extent.length, at);
        at = buffer.writeUInt32BE(extent.hole ? ALLOCATION_HOLE | ALLOCATION_ZERO : 0, at);
      }
    };
    const extents = this.#export.extents(request.offset, request.length, most);
    if (Array.isArray(extents)) {
      answer(extents);
      return undefined;
    }
    return extents.then((found) => {
      answer(found);
      this.#replies.flush();
    });
  }

  #answerAfter(request: Request, change: void | Promise<void>): Promise<void> | undefined {
    const durable = (request.flags & COMMAND_FLAG.FUA) !== 0;
    if (change === undefined && !durable) {
      this.#reserveSuccess(request);
      return undefined;
    }
    const done = change ?? Promise.resolve();
    // FUA is answered after a sync that began after the write: nothing less survives a power loss.
    const safe = durable ? done.then(() => stayAwake(this, this.#export.flush())) : done;
    return safe.then(() => this.#succeed(request));
  }

  #wait(request: Request, waiting: Promise<void>): void {
    const bytes = keptBytes(request);
    this.#waitingRequests += 1;
    this.#waitingBytes += bytes;
    const begun = performance.now();
    waiting
      .catch((failure: unknown) => {
        this.#fail(request, errorNumber(failure));
        this.#replies.flush();
      })
      .finally(() => {
        observeLatency(this.#counters, performance.now() - begun, 1);
        this.#waitingRequests -= 1;
        this.#waitingBytes -= bytes;
        if (this.#waitingRequests === 0) for (const settled of this.#settling.splice(0)) settled();
        this.#leaveIfDone();
        this.#resumeIfRoom();
      });
  }

  #reserveSuccess(request: Request): void {
    if (this.#options.structuredReplies) {
      const { buffer, start } = this.#replies.reserve(CHUNK_HEADER_BYTES);
      writeChunkHeader(buffer, start, CHUNK_DONE, CHUNK.NONE, request, 0);
    } else {
      const { buffer, start } = this.#replies.reserve(SIMPLE_REPLY_BYTES);
      writeSimpleHeader(buffer, start, request, 0);
    }
  }

  #succeed(request: Request): void {
    this.#reserveSuccess(request);
    this.#replies.flush();
  }

  #fail(request: Request, error: number): void {
    if (this.#options.structuredReplies) {
      const { buffer, start } = this.#replies.reserve(CHUNK_HEADER_BYTES + 6);
      writeChunkHeader(buffer, start, CHUNK_DONE, CHUNK.ERROR, request, 6);
      buffer.writeUInt32BE(error, start + CHUNK_HEADER_BYTES);
      buffer.writeUInt16BE(0, start + CHUNK_HEADER_BYTES + 4);
    } else {
      const { buffer, start } = this.#replies.reserve(SIMPLE_REPLY_BYTES);
      writeSimpleHeader(buffer, start, request, error);
    }
  }

  #isFull(): boolean {
    return (
      this.#connection.unsentBytes > MAX_UNSENT_BYTES ||
      this.#waitingRequests > MAX_WAITING_REQUESTS ||
      this.#waitingBytes > MAX_WAITING_BYTES
    );
  }

  #resumeIfRoom(): void {
    if (this.#ended || !this.#connection.paused || this.#isFull()) return;
    this.#connection.resume();
    // Those that were here already.
    this.#turn();
  }

  /** @see NBD protocol, NBD_CMD_DISC: "The server MUST handle all outstanding requests" */
  #leaveIfDone(): void {
    if (!this.#leaving || this.#ended || this.#waitingRequests > 0) return;
    this.#ended = true;
    this.#replies.flush();
    this.#connection.end();
  }
}

/** How many bytes a request that waits keeps in memory. (It may be about gigabytes that are nowhere: to discard, to zero.) */
function keptBytes({ command, length }: Request): number {
  if (command === COMMAND.READ || command === COMMAND.WRITE) return length;
  return command === COMMAND.CACHE ? Math.min(length, CACHE_PIECE_BYTES) : 0;
}
