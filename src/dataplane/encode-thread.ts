/** A thread that encodes blocks for the object store, and gives way to everything else on the machine. */
import os from 'node:os';
import { parentPort } from 'node:worker_threads';
import { ENCODING, encodeBlockNow } from '../snapshots/block-encoding.ts';
import type { EncodeAnswer, EncodeQuestion } from './encoders.ts';

if (parentPort === null) throw new Error('this is a thread of the data plane');
const port = parentPort;
// On Linux a priority is a thread's.
os.setPriority(os.constants.priority.PRIORITY_LOW);

port.on('message', ({ number, block }: EncodeQuestion) => {
  const { encoding, stored } = encodeBlockNow(Buffer.from(block.buffer, block.byteOffset, block.byteLength));
  if (encoding === ENCODING.PLAIN) {
    port.postMessage({ number, stored: undefined } satisfies EncodeAnswer);
    return;
  }
  // A copy of its own size: what zlib gives may be part of something larger.
  const smaller = new Uint8Array(stored);
  port.postMessage({ number, stored: smaller } satisfies EncodeAnswer, [smaller.buffer]);
});
