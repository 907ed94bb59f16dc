import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';

/** So many bytes a new connection sends before it hears that they have come (RFC 6928). */
const FIRST_WINDOW_BYTES = 10 * 1460;
/** More are never under way on one connection: what Linux lets a socket keep, as it comes. */
const LARGEST_WINDOW_BYTES = 4 * 1024 * 1024;
/** After that long without a byte a connection begins as a new one does (RFC 5681, section 4.1): Linux's shortest time-out. */
const IDLE_MILLISECONDS = 200;
/** Then the sender has to wait, as for a socket that is full. */
const MOST_WAITING_BYTES = 1024 * 1024;

/** The network to a server that is some milliseconds away, as TCP uses it: what is sent arrives later, slowly at first. */
export async function startDistance(port: number, roundTrip: number): Promise<{ port: number; stop: () => void }> {
  const sockets = new Set<Socket>();
  const server = createServer({ noDelay: true }, (client) => {
    // The connection is made at once here, and takes a round trip there.
    const made = performance.now() + roundTrip;
    const far = connect({ port, host: '127.0.0.1', noDelay: true });
    for (const socket of [client, far]) sockets.add(socket.on('close', () => sockets.delete(socket)));
    passOn(client, far, roundTrip, made);
    passOn(far, client, roundTrip, made);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    port: (server.address() as AddressInfo).port,
    stop() {
      server.close();
      for (const socket of sockets) socket.destroy();
    },
  };
}

/** @param made when the connection stands: nothing leaves before */
function passOn(from: Socket, to: Socket, roundTrip: number, made: number): void {
  const waiting: Buffer[] = [];
  let waitingBytes = 0;
  let underWayBytes = 0;
  let window = FIRST_WINDOW_BYTES;
  let lastSent = made;
  let ended = false;
  const arrive = inOrderAfter(roundTrip / 2);
  const acknowledge = inOrderAfter(roundTrip);

  const send = (): void => {
    const now = performance.now();
    if (underWayBytes === 0 && now - lastSent > IDLE_MILLISECONDS + roundTrip) window = FIRST_WINDOW_BYTES;
    while (waiting.length > 0 && underWayBytes < window) {
      const bytes = waiting[0].subarray(0, window - underWayBytes);
      if (bytes.length === waiting[0].length) waiting.shift();
      else waiting[0] = waiting[0].subarray(bytes.length);
      waitingBytes -= bytes.length;
      underWayBytes += bytes.length;
      lastSent = now;
      arrive(() => to.write(bytes));
      acknowledge(() => {
        underWayBytes -= bytes.length;
        window = Math.min(window + bytes.length, LARGEST_WINDOW_BYTES);
        send();
      });
    }
    if (waitingBytes < MOST_WAITING_BYTES) from.resume();
    if (!ended || waiting.length > 0) return;
    ended = false;
    arrive(() => to.end());
  };
  const sendWhenMade = (): void => {
    const milliseconds = made - performance.now();
    if (milliseconds > 0) setTimeout(send, milliseconds);
    else send();
  };

  from.on('data', (bytes: Buffer) => {
    waiting.push(bytes);
    waitingBytes += bytes.length;
    if (waitingBytes >= MOST_WAITING_BYTES) from.pause();
    sendWhenMade();
  });
  from.on('end', () => {
    ended = true;
    sendWhenMade();
  });
  from.on('error', () => to.destroy());
}

/** Runs each thing that it is given so much later, in their order (which timers of a length alone would not promise). */
function inOrderAfter(milliseconds: number): (run: () => void) => void {
  const queue: { at: number; run: () => void }[] = [];
  let armed = false;
  const arm = (): void => {
    if (armed || queue.length === 0) return;
    armed = true;
    setTimeout(
      () => {
        armed = false;
        while (queue.length > 0 && queue[0].at <= performance.now()) queue.shift()?.run();
        arm();
      },
      Math.max(0, queue[0].at - performance.now()),
    );
  };
  return (run) => {
    if (milliseconds === 0) {
      run();
      return;
    }
    queue.push({ at: performance.now() + milliseconds, run });
    arm();
  };
}
