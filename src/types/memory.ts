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
