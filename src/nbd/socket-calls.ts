import type { Socket } from 'node:net';
import koffi from 'koffi';

/** Linux calls on sockets that Node has only behind its event loop. */
const libc = koffi.load('libc.so.6');
const dupCall = libc.func('int dup(int fd)');
const recvCall = libc.func('int recv(int fd, uintptr_t buffer, uint32_t length, int flags)');
const sendCall = libc.func('int send(int fd, uintptr_t buffer, uint32_t length, int flags)');
const setOptionCall = libc.func('int setsockopt(int fd, int level, int name, int *value, uint32_t length)');
const yieldCall = libc.func('int sched_yield()');

const DO_NOT_WAIT = 0x40;
const NO_SIGNAL = 0x4000;
const SOL_SOCKET = 1;
const SO_SNDBUF = 7;

/** @returns how many bytes came; 0 when there are none now, or no more for ever: the event loop will tell */
export function receiveNow(fd: number, address: number, length: number): number {
  return Math.max(0, recvCall(fd, address, length, DO_NOT_WAIT));
}

/** @returns how many bytes the kernel took; 0 when it takes none now, or none any more: the event loop will tell */
export function sendNow(fd: number, address: number, length: number): number {
  return Math.max(0, sendCall(fd, address, length, DO_NOT_WAIT | NO_SIGNAL));
}

/** Lets the kernel hold more unsent bytes for a socket, as far as the machine's limits allow. */
export function growSendBuffer(fd: number, bytes: number): void {
  setOptionCall(fd, SOL_SOCKET, SO_SNDBUF, [bytes], 4);
}

/** Lets another thread run that waits for this processor. */
export function yieldProcessor(): void {
  yieldCall();
}

/** A descriptor of one's own for a socket's connection. @returns undefined for a stream that is not the kernel's */
export function duplicateOf(socket: Socket): number | undefined {
  // Node has no public name for it.
  const { _handle } = socket as unknown as { _handle?: { fd?: number } | null };
  if (typeof _handle?.fd !== 'number' || _handle.fd < 0) return undefined;
  const fd = dupCall(_handle.fd) as number;
  return fd < 0 ? undefined : fd;
}
