import type { Socket } from 'node:net';
import type { Readable } from 'node:stream';
import { finished } from 'node:stream/promises';
import { giveBack, roomFor } from './memory.ts';

/**
 * Reads the body of a message into one room (see roomFor); whoever is done with it gives it back.
 * @param length bytes, as the message's head says
 * @param socket of an answer: where Node reads it before the parser copies the body out of it. (Of a request the parser
 *   reads the socket itself, into memory that it has.)
 * @returns fewer where the body ends before that
 * @throws when the connection ends first
 */
export async function readBody(body: Readable, length: number, socket?: Socket): Promise<Buffer> {
  const bytes = roomFor(length);
  let used = 0;
  const read: Buffer[] = [];
  const giveBackNextTurn = (piece: Buffer): void => {
    // Each is memory of its own; left to V8, tens of MiB of them are there before it looks, and then it marks its whole
    // heap. Not at once: others may be about to look at it.
    if (read.push(piece) === 1) setImmediate(() => read.splice(0).forEach(giveBack));
  };
  body.on('data', (piece: Buffer) => {
    used += piece.copy(bytes, used);
    giveBackNextTurn(piece);
  });
  socket?.on('data', giveBackNextTurn);
  try {
    await finished(body);
  } finally {
    socket?.off('data', giveBackNextTurn);
  }
  return used === length ? bytes : bytes.subarray(0, used);
}
