import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { ApiError, wireErrors } from './api-error.ts';
import type { SignedRequest } from './signature.ts';

export type HttpRequest = SignedRequest & { sourceAddress: string };
export type HttpAnswer = {
  status: number;
  contentType: string;
  body: string | Buffer;
  headers?: Record<string, string>;
};

const MAX_BODY_BYTES = 1024 * 1024;
const REQUEST_MILLISECONDS = 60_000;

/** Reads requests whole, within limits, and gives them to one handler, which never throws. */
export class HttpServer {
  readonly #server: Server;

  constructor(handle: (request: HttpRequest) => Promise<HttpAnswer>, onTooLarge: (error: ApiError) => HttpAnswer) {
    this.#server = createServer({ requestTimeout: REQUEST_MILLISECONDS }, (incoming, outgoing) => {
      readRequest(incoming)
        .then(handle, (error: unknown) => {
          if (error instanceof ApiError) return onTooLarge(error);
          throw error;
        })
        .then(
          (answer) => send(outgoing, answer),
          () => outgoing.destroy(),
        );
    });
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

  /** Takes no more requests; resolves when those under way are answered. */
  async close(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    this.#server.closeIdleConnections();
    await closed;
  }
}

async function readRequest(incoming: IncomingMessage): Promise<HttpRequest> {
  if (Number(incoming.headers['content-length'] ?? 0) > MAX_BODY_BYTES)
    throw wireErrors.requestTooLarge(MAX_BODY_BYTES);
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of incoming) {
    length += chunk.length;
    if (length > MAX_BODY_BYTES) throw wireErrors.requestTooLarge(MAX_BODY_BYTES);
    chunks.push(chunk);
  }
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
    body: Buffer.concat(chunks),
    sourceAddress: incoming.socket.remoteAddress ?? '',
  };
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
