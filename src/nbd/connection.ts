import { Socket } from 'node:net';
import { addressOf } from '../types/address.ts';
import type { ReceiveBuffer } from './receive-buffer.ts';
import { duplicateOf, growSendBuffer, receiveNow, sendNow } from './socket-calls.ts';

/** A few large answers: with less, the server waits for the client to read the first before it can send the second. */
const SEND_BUFFER_BYTES = 1024 * 1024;
/**
 * Where the event loop puts what it reads: little, for it only tells that something has come. The rest is taken by
 * `poll`, to where it is to lie. One for all connections, as it is emptied before the next read.
 */
const LANDING = Buffer.alloc(4096);

/**
 * A client's connection, below the protocol. Bytes come straight into one buffer, and go out by a system call of their
 * own where the kernel takes them at once; what it does not take goes by way of the event loop.
 */
export class Connection {
  readonly #socket: Socket;
  /** Undefined for a stream that is not the kernel's: then all goes by way of the event loop. */
  readonly #fd: number | undefined;
  readonly #incoming: ReceiveBuffer;
  readonly closed: Promise<void>;

  /**
   * Takes a socket over.
   * @param incoming where the bytes go; there is always room in it when `onBytes` returns
   * @param onBytes told that bytes have come
   * @param onDrain told that all that was sent is gone
   */
  constructor(socket: Socket, incoming: ReceiveBuffer, onBytes: () => void, onDrain: () => void) {
    this.#incoming = incoming;
    this.#fd = duplicateOf(socket);
    if (this.#fd === undefined) {
      this.#socket = socket;
      socket.on('data', (bytes: Buffer) => {
        incoming.copyIn(bytes);
        onBytes();
      });
    } else {
      const onread = {
        buffer: LANDING,
        callback: (length: number): boolean => {
          incoming.copyIn(LANDING.subarray(0, length));
          onBytes();
          return true;
        },
      };
      this.#socket = new Socket({ fd: this.#fd, readable: true, writable: true, onread });
      growSendBuffer(this.#fd, SEND_BUFFER_BYTES);
      this.#socket.pause();
      socket.destroy();
    }
    this.closed = new Promise((resolve) => this.#socket.once('close', () => resolve()));
    this.#socket.on('error', () => this.#socket.destroy());
    this.#socket.on('end', () => this.#socket.destroy());
    this.#socket.on('drain', onDrain);
  }

  get unsentBytes(): number {
    return this.#socket.writableLength;
  }

  get paused(): boolean {
    return this.#socket.isPaused();
  }

  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  /** Takes what has come meanwhile, without waiting. @returns whether there was anything */
  poll(): boolean {
    if (this.#fd === undefined || this.#socket.destroyed || this.#socket.isPaused()) return false;
    const length = receiveNow(this.#fd, this.#incoming.roomAddress, this.#incoming.roomBytes);
    this.#incoming.added(length);
    return length > 0;
  }

  /**
   * Sends `bytes[0, length)`.
   * @param address that of `bytes`, where it is known
   * @param sent told when the bytes are the kernel's, and may change
   */
  send(bytes: Buffer, length: number, address?: number, sent: () => void = () => undefined): void {
    if (this.#socket.destroyed) return sent();
    let done = 0;
    if (this.#fd !== undefined && this.#socket.writableLength === 0) {
      done = sendNow(this.#fd, address ?? addressOf(bytes), length);
      if (done === length) return sent();
    }
    this.#socket.write(bytes.subarray(done, length), sent);
  }

  /** Sends what is under way, and no more. */
  end(): void {
    this.#socket.end();
  }

  destroy(): void {
    this.#socket.destroy();
  }
}
