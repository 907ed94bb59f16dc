import { Worker } from 'node:worker_threads';
import type { Encoded } from '../snapshots/block-encoding.ts';

/** The blocks lie in memory that both threads see. */
export type EncodeQuestion = { blocks: readonly Uint8Array[]; restFactor: number };
/** In their order. The encoded bytes lie where the block did, from its beginning on. */
export type EncodeAnswer = readonly { encoding: Encoded['encoding']; length: number }[];

type Asked = { block: Buffer; answer: PromiseWithResolvers<Encoded> };

/**
 * Encodes blocks on a thread of low priority: a guest's request goes before the compression of any snapshot, which on
 * libuv's own threads would compete with it. (Each worker has one, and there are as many workers as processors.)
 */
export class Encoder {
  readonly #thread = new Worker(new URL('./encode-thread.ts', import.meta.url), {
    // Its garbage is small; left to itself, V8 would keep tens of MiB for it.
    resourceLimits: { maxYoungGenerationSizeMb: 2 },
  });
  /** What was asked in this turn: it goes out together, for each message wakes the other thread, and each answer this one. */
  #outgoing: Asked[] = [];
  /** By message, the oldest first: they are answered in their order. */
  readonly #waiting: Asked[][] = [];

  constructor() {
    this.#thread.on('message', (answers: EncodeAnswer) => {
      const asked = this.#waiting.shift() ?? [];
      for (const [index, { block, answer }] of asked.entries()) {
        const { encoding, length } = answers[index];
        answer.resolve({ encoding, stored: block.subarray(0, length) });
      }
    });
    // Without it the thread that uploads is half dead: it ends whole.
    this.#thread.on('error', (error) => {
      throw error;
    });
    this.#thread.unref();
  }

  /** @param block of shared memory; the encoded bytes take its place @param restFactor see Pace */
  encode(block: Buffer, restFactor: number): Promise<Encoded> {
    const answer = Promise.withResolvers<Encoded>();
    this.#outgoing.push({ block, answer });
    if (this.#outgoing.length === 1) queueMicrotask(() => this.#send(restFactor));
    return answer.promise;
  }

  #send(restFactor: number): void {
    const asked = this.#outgoing;
    this.#outgoing = [];
    this.#waiting.push(asked);
    const blocks = asked.map(({ block }) => new Uint8Array(block.buffer, block.byteOffset, block.byteLength));
    this.#thread.postMessage({ blocks, restFactor } satisfies EncodeQuestion);
  }
}
