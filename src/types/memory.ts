/**
 * Gives a large buffer's memory back now; whoever looks at it afterwards finds it empty. Left to V8, each few blocks of
 * 512 KiB bring on a marking of the whole heap: a quarter of the processor time of an export went there.
 *
 * Small buffers lie in a pool that others use, too: they stay.
 */
export function giveBack(bytes: Buffer): void {
  const { buffer } = bytes;
  if (buffer instanceof ArrayBuffer && buffer.byteLength > Buffer.poolSize) buffer.transfer(0);
}

/**
 * Copies all of a buffer to a place in another. Where threads share the memory, V8 copies a *whole* view word by word, in
 * case the other thread looks, at two thirds of the speed; part of a larger view it copies like any memory. Nobody else
 * may be at these bytes meanwhile.
 */
export function copyWhole(from: Buffer, to: Buffer, at: number): void {
  const { buffer, byteOffset, byteLength } = from;
  Buffer.from(buffer as ArrayBuffer).copy(to, at, byteOffset, byteOffset + byteLength);
}
