import { readFileSync, watchFile } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createServer as createSecureServer } from 'node:https';
import type { Socket } from 'node:net';
import type { SecureContextOptions } from 'node:tls';
import { readBody } from '../types/http-body.ts';
import { giveBack } from '../types/memory.ts';
import { ApiError, wireErrors } from './api-error.ts';
import type { SignedRequest } from './signature.ts';

export type HttpRequest = SignedRequest & {
  sourceAddress: string;
  /** Over TLS. */
  secure: boolean;
};
export type HttpAnswer = {
  status: number;
  contentType: string;
  /** Of bytes the memory is the answer's own: it is given back when they are sent. */
  body: string | Buffer;
  headers?: Record<string, string>;
};

/** Certificate and key, PEM; read again when they change. */
export type TlsFiles = { cert: string; key: string };

export type HttpOptions = { tls: TlsFiles | undefined; connectionsPerClient: number };

const MAX_BODY_BYTES = 1024 * 1024;
/** A block of a volume, not a question: it goes to one place, and its memory back. */
const LARGE_BODY_BYTES = 64 * 1024;
const MAX_HEADER_BYTES = 16 * 1024;
const HEADERS_MILLISECONDS = 20_000;
const REQUEST_MILLISECONDS = 60_000;
const IDLE_MILLISECONDS = 30_000;
const MAX_CONNECTIONS = 2_048;
const WATCH_MILLISECONDS = 2_000;
/** So long an end waits for calls under way, and for clients to take their answers. */
const LAST_ANSWERS_MILLISECONDS = 20_000;

/** Reads requests whole, within limits, and gives them to one handler, which never throws. */
export class HttpServer {
  readonly #server: Server;
  readonly #perClient = new Map<string, number>();
  /** Requests that were read whole, until their answers are with the system. */
  readonly #underWay = new Set<Promise<void>>();
  #closing = false;

  constructor(
    handle: (request: HttpRequest) => Promise<HttpAnswer>,
    onTooLarge: (error: ApiError) => HttpAnswer,
    { tls, connectionsPerClient }: HttpOptions,
  ) {
    const limits = {
      requestTimeout: REQUEST_MILLISECONDS,
      headersTimeout: HEADERS_MILLISECONDS,
      keepAliveTimeout: IDLE_MILLISECONDS,
      maxHeaderSize: MAX_HEADER_BYTES,
      connectionsCheckingInterval: 5_000,
    };
    const answer = (incoming: IncomingMessage, outgoing: ServerResponse): void => {
      readRequest(incoming)
        .then(
          (request) => {
            const handled = handle(request).finally(() => giveBack(request.body));
            this.#track(handled, outgoing);
          },
          (error: unknown) => {
            if (error instanceof ApiError) return this.#track(Promise.resolve(onTooLarge(error)), outgoing);
            throw error;
          },
        )
        .catch(() => outgoing.destroy());
    };
    if (tls === undefined) {
      this.#server = createServer(limits, answer);
    } else {
      const secure = createSecureServer({ ...limits, ...readTls(tls) }, answer);
      for (const file of [tls.cert, tls.key]) {
        watchFile(file, { interval: WATCH_MILLISECONDS, persistent: false }, () => {
          // One file may be new while the other is still old: the old pair serves until both fit.
          try {
            secure.setSecureContext(readTls(tls));
          } catch {}
        });
      }
      this.#server = secure;
    }
    this.#server.maxConnections = MAX_CONNECTIONS;
    this.#server.on('connection', (socket: Socket) => this.#limit(socket, connectionsPerClient));
  }

  /** So many connections from one address at once: one client must not take them all. */
  #limit(socket: Socket, most: number): void {
    const address = socket.remoteAddress ?? '';
    const count = (this.#perClient.get(address) ?? 0) + 1;
    this.#perClient.set(address, count);
    socket.once('close', () => {
      const left = (this.#perClient.get(address) ?? 1) - 1;
      if (left === 0) this.#perClient.delete(address);
      else this.#perClient.set(address, left);
    });
    if (count > most) socket.destroy();
  }

  /** @param port 0 for any free one @returns the port */
  async listen(host: string, port: number): Promise<number> {
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen(port, host, resolve);
    });
    const address = this.#server.address();
    if (address === null || typeof address === 'string') throw new Error('an HTTP server has a port');
    return address.port;
  }

  /**
   * Takes no more requests; resolves when those under way are answered, or have taken too long. Connections on which there
   * is none, or half of one, are cut off: whoever holds them must not keep the server from stopping.
   */
  async close(): Promise<void> {
    this.#closing = true;
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    const late = Promise.withResolvers<void>();
    const timer = setTimeout(late.resolve, LAST_ANSWERS_MILLISECONDS);
    await Promise.race([this.#answered(), late.promise]);
    clearTimeout(timer);
    this.#server.closeAllConnections();
    await closed;
  }

  async #answered(): Promise<void> {
    while (this.#underWay.size > 0) await Promise.all(this.#underWay);
  }

  #track(answering: Promise<HttpAnswer>, outgoing: ServerResponse): void {
    const gone = outgoing.closed
      ? Promise.resolve()
      : new Promise<void>((resolve) => outgoing.once('close', () => resolve()));
    const work = answering
      .then(async (answer) => {
        // Or the client would go on to ask on this connection.
        if (this.#closing) outgoing.setHeader('Connection', 'close');
        send(outgoing, answer);
        await gone;
        if (typeof answer.body !== 'string') giveBack(answer.body);
      })
      .catch(() => outgoing.destroy())
      .then(() => gone)
      .finally(() => this.#underWay.delete(work));
    this.#underWay.add(work);
  }
}

export function readTls({ cert, key }: TlsFiles): SecureContextOptions {
  return { cert: readFileSync(cert), key: readFileSync(key), minVersion: 'TLSv1.2' };
}

async function readRequest(incoming: IncomingMessage): Promise<HttpRequest> {
  const length = Number(incoming.headers['content-length'] ?? 0);
  if (length > MAX_BODY_BYTES) throw wireErrors.requestTooLarge(MAX_BODY_BYTES);
  const body = length >= LARGE_BODY_BYTES ? await readBody(incoming, length) : await gather(incoming);
  const [path, query] = splitTarget(incoming.url ?? '/');
  const headers: Record<string, string> = {};
  for (const [name, value] of Object.entries(incoming.headers)) {
    if (value !== undefined) headers[name] = Array.isArray(value) ? value.join(',') : value;
  }
  return {
    method: incoming.method ?? 'GET',
    path,
    query: new URLSearchParams(query),
    headers,
    body,
    sourceAddress: (incoming.socket.remoteAddress ?? '').replace(/^::ffff:(?=\d+\.)/, ''),
    secure: 'encrypted' in incoming.socket,
  };
}

async function gather(incoming: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of incoming) {
    length += chunk.length;
    if (length > MAX_BODY_BYTES) throw wireErrors.requestTooLarge(MAX_BODY_BYTES);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

function send(outgoing: ServerResponse, answer: HttpAnswer): void {
  outgoing.writeHead(answer.status, {
    'Content-Type': answer.contentType,
    'Content-Length': Buffer.byteLength(answer.body),
    ...answer.headers,
  });
  outgoing.end(answer.body);
}

function splitTarget(target: string): [string, string] {
  const at = target.indexOf('?');
  return at === -1 ? [target, ''] : [target.slice(0, at), target.slice(at + 1)];
}
