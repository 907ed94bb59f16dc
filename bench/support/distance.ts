import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';

/** The network to a server that is some milliseconds away: whatever is sent arrives later, in order, at any rate. */
export async function startDistance(port: number, roundTrip: number): Promise<{ port: number; stop: () => void }> {
  const sockets = new Set<Socket>();
  const pass = (from: Socket, to: Socket, delay: () => number): void => {
    sockets.add(from);
    from.on('data', (bytes) => setTimeout(() => to.write(bytes), delay()));
    from.on('end', () => setTimeout(() => to.end(), delay()));
    from.on('error', () => to.destroy());
    from.on('close', () => sockets.delete(from));
  };
  const server = createServer({ noDelay: true }, (client) => {
    // The connection is made at once here, and takes a round trip there.
    const made = performance.now() + roundTrip;
    const far = connect({ port, host: '127.0.0.1', noDelay: true });
    pass(client, far, () => Math.max(0, made - performance.now()) + roundTrip / 2);
    pass(far, client, () => roundTrip / 2);
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
