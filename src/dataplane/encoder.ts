import { Worker } from 'node:worker_threads';
import type { Encoded } from '../snapshots/block-encoding.ts';

/** The block lies in memory that both threads see. */
export type EncodeQuestion = { number: number; block: Uint8Array; restFactor: number };
/** The encoded bytes lie where the block did, from its beginning on. */
export type EncodeAnswer = { number: number; encoding: Encoded['encoding']; length: number };

/**
 * Encodes blocks on a thread of low priority: a guest's request goes before the compression of any snapshot, which on
 * libuv's own threads would compete with it. (Each worker has one, and there are as many workers as processors.)
 */
export class Encoder {
  readonly #thread = new Worker(new URL('./encode-thread.ts', import.meta.url), {
    // Its garbage is small; left to itself, V8 would keep tens of MiB for it.
    resourceLimits: { maxYoungGenerationSizeMb: 2 },
  });
  readonly #waiting = new Map<number, PromiseWithResolvers<EncodeAnswer>>();
  #next = 0;

  constructor() {
    this.#thread.on('message', (answer: EncodeAnswer) => {
      this.#waiting.get(answer.number)?.resolve(answer);
      this.#waiting.delete(answer.number);
    });
    // Without it the thread that uploads is half dead: it ends whole.
    this.#thread.on('error', (error) => {
      throw error;
    });
    this.#thread.unref();
  }

  /** @param block of shared memory; the encoded bytes take its place @param restFactor see Pace */
  async encode(block: Buffer, restFactor: number): Promise<Encoded> {
    const number = this.#next++;
    const answer = Promise.withResolvers<EncodeAnswer>();
    this.#waiting.set(number, answer);
    const view = new Uint8Array(block.buffer, block.byteOffset, block.byteLength);
    this.#thread.postMessage({ number, block: view, restFactor } satisfies EncodeQuestion);
    const { encoding, length } = await answer.promise;
    return { encoding, stored: block.subarray(0, length) };
  }
}
