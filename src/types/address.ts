import koffi from 'koffi';

/** Where a buffer's bytes lie, for calls that take addresses. They stay there as long as the buffer lives: it must be kept. */
export function addressOf(bytes: Uint8Array): number {
  return Number(koffi.address(bytes));
}
