/** A thread that encodes blocks for the object store, and gives way to everything else on the machine. */
import os from 'node:os';
import { parentPort } from 'node:worker_threads';
import { ENCODING, encodeBlockNow } from '../snapshots/block-encoding.ts';
import type { EncodeAnswer, EncodeQuestion } from './encoder.ts';
import { restAfter } from './pace.ts';

if (parentPort === null) throw new Error('this is a thread of the data plane');
const port = parentPort;
// On Linux a priority is a thread's.
os.setPriority(os.constants.priority.PRIORITY_LOW);

/** Nothing ever wakes who waits for it. */
const rest = new Int32Array(new SharedArrayBuffer(4));

port.on('message', ({ blocks, restFactor }: EncodeQuestion) => {
  port.postMessage(blocks.map((block) => encode(block, restFactor)) satisfies EncodeAnswer);
});

function encode(block: Uint8Array, restFactor: number): EncodeAnswer[number] {
  const before = process.threadCpuUsage();
  const bytes = Buffer.from(block.buffer, block.byteOffset, block.byteLength);
  const { encoding, stored } = encodeBlockNow(bytes);
  const { length } = stored;
  // In the block's own place: its plain bytes were hashed before, and are needed no more.
  if (encoding === ENCODING.ZSTD) stored.copy(bytes);
  if (restFactor > 0) {
    const { user, system } = process.threadCpuUsage(before);
    Atomics.wait(rest, 0, 0, restAfter((user + system) / 1000, restFactor));
  }
  return { encoding, length };
}
