import { chmodSync, rmSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import type { ExportDirectory } from './export.ts';
import { Handshake, type HandshakeStep } from './handshake.ts';

/** Who connects: over TLS, someone who has proven an identity; else whoever may open the socket. */
export type Client =
  | { transport: 'unix'; identity: undefined; address: '' }
  | { transport: 'tcp'; identity: undefined; address: string }
  | { transport: 'tls'; identity: string; address: string };

export type Accepted = Extract<HandshakeStep, { kind: 'transmit' }>;

type Introduction = { identity: string; clientFlags: number; address: string };

const HANDSHAKE_MILLISECONDS = 30_000;
/**
 * Answers go at once. And a client whose machine or network is gone, which an idle connection never notices, is asked for
 * after a minute, and given up ten minutes later (Linux's nine questions): it would be connected for ever.
 */
export const NBD_SOCKET = { noDelay: true, keepAlive: true, keepAliveInitialDelay: 60_000 } as const;
/** Past it the one that began first has to go: who means it is through in milliseconds, and is not shut out by many who keep silent. */
const MAX_HANDSHAKES = 256;

/**
 * Accepts NBD clients and haggles with them; a client that has named its export is handed on, socket and all.
 * Nothing a client sends can end more than its own connection.
 */
export class NbdListener {
  readonly #exportsFor: (client: Client) => ExportDirectory;
  readonly #handOver: (socket: Socket, accepted: Accepted, client: Client) => void;
  readonly #servers: Server[] = [];
  readonly #handshakes = new Set<Socket>();

  /** @param exportsFor the exports that a client may know of */
  constructor(
    exportsFor: (client: Client) => ExportDirectory,
    handOver: (socket: Socket, accepted: Accepted, client: Client) => void,
  ) {
    this.#exportsFor = exportsFor;
    this.#handOver = handOver;
  }

  /** @throws when another server answers at the path; a socket file that no one answers at is replaced */
  async listenUnix(path: string): Promise<void> {
    if (await answers(path)) throw new Error(`another server is listening on ${path}`);
    rmSync(path, { force: true });
    await this.#listen(
      (server, done) => server.listen(path, done),
      (socket) => this.#accept(socket, { transport: 'unix', identity: undefined, address: '' }),
    );
    // Whoever may open the socket may read and write every volume: the server's user alone.
    chmodSync(path, 0o600);
  }

  /** @param port 0 for any free one @returns the port */
  async listenTcp(host: string, port: number): Promise<number> {
    const server = await this.#listen(
      (server, done) => server.listen(port, host, done),
      (socket) => this.#accept(socket, { transport: 'tcp', identity: undefined, address: socket.remoteAddress ?? '' }),
    );
    const address = server.address();
    if (address === null || typeof address === 'string') throw new Error('a TCP server has a port');
    return address.port;
  }

  /** Where the TLS gateway brings the clients that it has let in, each with an introduction. */
  async listenGateway(path: string): Promise<void> {
    rmSync(path, { force: true });
    await this.#listen(
      (server, done) => server.listen(path, done),
      (socket) => this.#acceptIntroduced(socket),
    );
    chmodSync(path, 0o600);
  }

  close(): void {
    for (const server of this.#servers) server.close();
    for (const socket of this.#handshakes) socket.destroy();
  }

  async #listen(start: (server: Server, done: () => void) => void, accept: (socket: Socket) => void): Promise<Server> {
    const server = createServer(NBD_SOCKET, accept);
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      start(server, () => {
        server.off('error', reject);
        // Too many open files and the like: that client is turned away, the others go on.
        server.on('error', () => undefined);
        resolve();
      });
    });
    this.#servers.push(server);
    return server;
  }

  /** Reads who it is: a length (u32, big-endian), then JSON; and the client's own bytes after that. */
  #acceptIntroduced(socket: Socket): void {
    let input: Buffer = Buffer.alloc(0);
    socket.on('error', () => socket.destroy());
    const receive = (bytes: Buffer): void => {
      input = Buffer.concat([input, bytes]);
      if (input.length < 4 || input.length < 4 + input.readUInt32BE(0)) return;
      socket.off('data', receive);
      socket.pause();
      const end = 4 + input.readUInt32BE(0);
      const { identity, clientFlags, address } = JSON.parse(input.toString('utf8', 4, end)) as Introduction;
      if (end < input.length) socket.unshift(input.subarray(end));
      this.#accept(socket, { transport: 'tls', identity, address }, clientFlags);
      socket.resume();
    };
    socket.on('data', receive);
  }

  /** @param clientFlags of a client that was greeted already */
  #accept(socket: Socket, client: Client, clientFlags?: number): void {
    this.#handshakes.add(socket);
    for (const oldest of this.#handshakes) {
      if (this.#handshakes.size <= MAX_HANDSHAKES) break;
      this.#handshakes.delete(oldest);
      oldest.destroy();
    }
    const timer = setTimeout(() => socket.destroy(), HANDSHAKE_MILLISECONDS);
    const done = (): void => {
      clearTimeout(timer);
      this.#handshakes.delete(socket);
    };
    socket.on('error', () => socket.destroy());
    socket.once('close', done);
    const handshake = new Handshake(this.#exportsFor(client), (bytes) => sendTo(socket, bytes), clientFlags);
    const receive = (bytes: Buffer): void => {
      // Paused while an answer is made: one message at a time, and none read that should go to the next process.
      socket.pause();
      handshake.feed(bytes).then(
        (step) => {
          switch (step.kind) {
            case 'more':
              socket.resume();
              break;
            case 'end':
              socket.end();
              socket.destroySoon();
              break;
            case 'transmit': {
              done();
              socket.off('data', receive);
              socket.off('close', done);
              const late: Buffer | null = socket.read();
              const rest = late === null ? step.rest : Buffer.concat([step.rest, late]);
              this.#handOver(socket, { ...step, rest }, client);
              break;
            }
            default:
              step satisfies never;
          }
        },
        () => socket.destroy(),
      );
    };
    socket.on('data', receive);
    if (clientFlags === undefined) handshake.greet();
  }
}

/** @returns where it is more than the system takes: when that has it all, or the client is gone */
function sendTo(socket: Socket, bytes: Buffer): Promise<void> | undefined {
  if (socket.write(bytes) || socket.destroyed) return undefined;
  return new Promise((resolve) => {
    const done = (): void => {
      socket.off('drain', done);
      socket.off('close', done);
      resolve();
    };
    socket.once('drain', done);
    socket.once('close', done);
  });
}

function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = connect(path);
    probe.once('connect', () => {
      probe.destroy();
      resolve(true);
    });
    probe.once('error', () => resolve(false));
  });
}
