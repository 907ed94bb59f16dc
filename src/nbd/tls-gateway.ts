/**
 * A process that stands before the server on NBD's TCP port, and speaks TLS with clients: what they say afterwards goes
 * on, in the clear, through a unix socket that the server's user alone can open. So encryption takes nothing from the
 * time of the API, nor of the volumes.
 *
 * @see NBD protocol, "TLS support": FORCEDTLS mode, everything but STARTTLS and ABORT is refused before
 */
import { connect, createServer, type Socket } from 'node:net';
import { createServer as createTlsServer, type TLSSocket } from 'node:tls';
import { type GatewaySettings, secureContext, watchFiles } from './gateway-settings.ts';
import { NBD_SOCKET } from './listener.ts';
import { readPskFile } from './psk-file.ts';
import { TlsNegotiation } from './tls-negotiation.ts';

const HANDSHAKE_MILLISECONDS = 15_000;

const settings = JSON.parse(process.env.CLEANCUT_NBD_TLS ?? '') as GatewaySettings;
let psk = readPskFile(settings.pskFile);
/** What a connection has said so far, until it is through. */
const negotiations = new WeakMap<Socket, { clientFlags: number; pskIdentity: string | undefined }>();
const perClient = new Map<string, number>();

const secure = createTlsServer(
  {
    ...secureContext(settings),
    requestCert: settings.ca !== undefined,
    // `forward` looks at who it is: Node would refuse those who have a shared key, and so no certificate.
    rejectUnauthorized: false,
    handshakeTimeout: HANDSHAKE_MILLISECONDS,
    ...(settings.pskFile === undefined
      ? {}
      : {
          pskCallback(socket: TLSSocket, identity: string) {
            const key = psk.get(identity);
            const negotiation = negotiations.get(parentOf(socket));
            if (key === undefined || negotiation === undefined) return null;
            negotiation.pskIdentity = identity;
            return key;
          },
        }),
  },
  (socket) => forward(socket),
);
secure.on('tlsClientError', (_, socket) => socket.destroy());

const server = createServer(NBD_SOCKET, (socket) => {
  const address = socket.remoteAddress ?? '';
  const count = perClient.get(address) ?? 0;
  if (count >= settings.connectionsPerClient) {
    socket.destroy();
    return;
  }
  perClient.set(address, count + 1);
  socket.once('close', () => {
    const left = (perClient.get(address) ?? 1) - 1;
    if (left === 0) perClient.delete(address);
    else perClient.set(address, left);
  });
  socket.on('error', () => socket.destroy());
  const timer = setTimeout(() => socket.destroy(), HANDSHAKE_MILLISECONDS);
  socket.once('close', () => clearTimeout(timer));
  const negotiation = new TlsNegotiation((bytes) => socket.write(bytes));
  const receive = (bytes: Buffer): void => {
    const step = negotiation.feed(bytes);
    switch (step.kind) {
      case 'more':
        return;
      case 'end':
        socket.destroySoon();
        return;
      case 'start-tls':
        clearTimeout(timer);
        socket.off('data', receive);
        negotiations.set(socket, { clientFlags: step.clientFlags, pskIdentity: undefined });
        secure.emit('connection', socket);
        return;
      default:
        step satisfies never;
    }
  };
  socket.on('data', receive);
  negotiation.greet();
});

/** The client has proven who it is: from here on it talks to the server. */
function forward(socket: TLSSocket): void {
  const negotiation = negotiations.get(parentOf(socket));
  const identity = identityOf(socket, negotiation?.pskIdentity);
  if (negotiation === undefined || identity === undefined) {
    socket.destroy();
    return;
  }
  const inner = connect(settings.socket);
  const { clientFlags } = negotiation;
  const introduction = Buffer.from(JSON.stringify({ identity, clientFlags, address: socket.remoteAddress ?? '' }));
  const length = Buffer.alloc(4);
  length.writeUInt32BE(introduction.length);
  inner.write(Buffer.concat([length, introduction]));
  socket.pipe(inner).pipe(socket);
  for (const [one, other] of [
    [socket, inner],
    [inner, socket],
  ]) {
    one.on('error', () => one.destroy());
    one.once('close', () => other.destroySoon());
  }
}

/** @returns undefined for one that has proven nothing */
function identityOf(socket: TLSSocket, pskIdentity: string | undefined): string | undefined {
  // With such a cipher, the handshake comes to an end only for one who has the key.
  if (socket.getCipher().standardName.includes('_PSK_')) return pskIdentity;
  if (!socket.authorized) return undefined;
  const name: unknown = socket.getPeerCertificate().subject?.CN;
  return typeof name === 'string' && name !== '' ? name : undefined;
}

/** The plain connection beneath: node:tls keeps it, and has no name for it in its types. */
function parentOf(socket: TLSSocket): Socket {
  return (socket as TLSSocket & { _parent: Socket })._parent;
}

watchFiles(settings, () => {
  // A file that is half written is read again when it is whole: until then the old one serves.
  try {
    secure.setSecureContext(secureContext(settings));
    psk = readPskFile(settings.pskFile);
  } catch (error) {
    process.stderr.write(`cleancut: the NBD server's TLS files are not usable yet: ${(error as Error).message}\n`);
  }
});

for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => undefined);
// The server is gone, and so is what is behind the socket.
process.on('disconnect', () => process.exit(0));
// It may have been gone before this process could listen.
if (!process.connected) process.exit(0);
server.on('error', (error) => {
  process.send?.({ failed: error.message });
});
server.listen(settings.port, settings.host, () => {
  const address = server.address();
  process.send?.({ port: typeof address === 'object' ? address?.port : undefined });
});
