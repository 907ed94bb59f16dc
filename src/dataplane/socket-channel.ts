import { Socket } from 'node:net';
import { deserialize, serialize } from 'node:v8';
import koffi from 'koffi';
import type { Channel, RpcMessage } from './rpc.ts';

const libc = koffi.load('libc.so.6');
const socketPairCall = libc.func('int socketpair(int domain, int type, int protocol, _Out_ int *fds)');
const UNIX = 1;
const STREAM_CLOSED_ON_EXEC = 1 | 0o2000000;
const LENGTH_BYTES = 4;

/** Two sockets of this process that are connected with each other: one end for each thread. @returns their descriptors */
export function socketPair(): [number, number] {
  const fds: [number, number] = [0, 0];
  if (socketPairCall(UNIX, STREAM_CLOSED_ON_EXEC, 0, fds) !== 0) {
    throw new Error(`socketpair failed: error ${koffi.errno()}; does the process have too many files open?`);
  }
  return fds;
}

/**
 * A channel between two threads that have different priorities. Node's own (a MessagePort) has a mutex, and wakes who
 * receives while the sender still holds it: the one that serves guests was woken at once, found the mutex taken, and had
 * to wait until the other, which gives way to everything, ran again: up to 14 ms for one message. A socket's queue is
 * the kernel's, which does not let a thread be set aside while it holds it.
 */
export function threadChannel(fd: number): Channel {
  return socketChannel(new Socket({ fd, readable: true, writable: true }));
}

/** A channel over a socket whose other end has one, too. */
export function socketChannel(socket: Socket): Channel {
  return {
    post(messages) {
      const body = serialize(messages);
      const length = Buffer.alloc(LENGTH_BYTES);
      length.writeUInt32LE(body.length);
      socket.cork();
      socket.write(length);
      socket.write(body);
      socket.uncork();
    },
    onMessages(receive) {
      let pieces: Buffer[] = [];
      let bytes = 0;
      socket.on('data', (piece: Buffer) => {
        pieces.push(piece);
        bytes += piece.length;
        let whole = messageBytes(pieces);
        if (whole === undefined || bytes < whole) return;
        let rest = Buffer.concat(pieces);
        for (; whole !== undefined && rest.length >= whole; whole = messageBytes([rest])) {
          receive(deserialize(rest.subarray(LENGTH_BYTES, whole)) as RpcMessage[]);
          rest = rest.subarray(whole);
        }
        pieces = rest.length === 0 ? [] : [rest];
        bytes = rest.length;
      });
    },
  };
}

/** How long the message is that begins here, with its length; undefined as long as that is not known. */
function messageBytes(pieces: readonly Buffer[]): number | undefined {
  if (pieces.length === 0) return undefined;
  const start = pieces[0].length >= LENGTH_BYTES ? pieces[0] : Buffer.concat(pieces);
  return start.length < LENGTH_BYTES ? undefined : LENGTH_BYTES + start.readUInt32LE();
}
