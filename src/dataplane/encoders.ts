import { availableParallelism } from 'node:os';
import { Worker } from 'node:worker_threads';
import { ENCODING, type Encoded } from '../snapshots/block-encoding.ts';

/** The block lies in memory that both threads see. */
export type EncodeQuestion = { number: number; block: Uint8Array };
/** Without bytes: the block is to be stored as it is. */
export type EncodeAnswer = { number: number; stored: Uint8Array | undefined };

const MOST_THREADS = 2;

/**
 * Encodes blocks on threads of low priority: a guest's request goes before the compression of any snapshot, which on
 * libuv's own threads would compete with it.
 */
export class Encoders {
  readonly #threads: Worker[];
  readonly #waiting = new Map<number, PromiseWithResolvers<Uint8Array | undefined>>();
  #next = 0;

  constructor() {
    this.#threads = Array.from({ length: Math.min(MOST_THREADS, availableParallelism()) }, () => {
      const thread = new Worker(new URL('./encode-thread.ts', import.meta.url));
      thread.on('message', ({ number, stored }: EncodeAnswer) => {
        this.#waiting.get(number)?.resolve(stored);
        this.#waiting.delete(number);
      });
      // Without them the thread that uploads is half dead: it ends whole.
      thread.on('error', (error) => {
        throw error;
      });
      thread.unref();
      return thread;
    });
  }

  /** @param block of shared memory, which must not change until the answer is there */
  async encode(block: Buffer): Promise<Encoded> {
    const number = this.#next++;
    const answer = Promise.withResolvers<Uint8Array | undefined>();
    this.#waiting.set(number, answer);
    const view = new Uint8Array(block.buffer, block.byteOffset, block.byteLength);
    this.#threads[number % this.#threads.length].postMessage({ number, block: view } satisfies EncodeQuestion);
    const stored = await answer.promise;
    if (stored === undefined) return { encoding: ENCODING.PLAIN, stored: block };
    return { encoding: ENCODING.ZSTD, stored: Buffer.from(stored.buffer, stored.byteOffset, stored.byteLength) };
  }
}
