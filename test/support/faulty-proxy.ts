import { once } from 'node:events';
import { createServer, type IncomingMessage, request, type ServerResponse } from 'node:http';
import type { TestContext } from 'node:test';

/** What can happen to a request on its way to an S3 server, or to the answer on its way back. */
export const FAULTS = [
  'internal error',
  'throttled',
  'connection refused',
  'request cut in mid-body',
  'answer cut in mid-body',
  'answer that stops in mid-body',
  'no answer',
  'slow body',
  'wrong bytes',
  'stored, but the answer is lost',
] as const;
export type Fault = (typeof FAULTS)[number];

/** The network between a server and an S3 server: passes requests on, but for those that `chooseFault` gives a fault. */
export class FaultyProxy {
  readonly #target: URL;
  readonly #server = createServer((incoming, outgoing) => void this.#handle(incoming, outgoing));
  chooseFault: (method: string, path: string) => Fault | undefined = () => undefined;
  /** Everything is away: connections are closed at once. */
  outage = false;
  readonly counts = new Map<Fault | 'outage' | 'passed', number>();

  private constructor(target: URL) {
    this.#target = target;
  }

  /** @param storeUrl of an `s3://` store with an endpoint @returns the proxy, and the same store's URL by way of it */
  static async start(test: TestContext, storeUrl: string): Promise<{ proxy: FaultyProxy; url: string }> {
    const endpoint = /endpoint=([^&]+)/.exec(storeUrl)?.[1] ?? '';
    const proxy = new FaultyProxy(new URL(endpoint));
    proxy.#server.listen(0, '127.0.0.1');
    await once(proxy.#server, 'listening');
    test.after(() => {
      proxy.#server.close();
      proxy.#server.closeAllConnections();
    });
    const address = proxy.#server.address();
    if (address === null || typeof address === 'string') throw new Error('no port');
    return { proxy, url: storeUrl.replace(endpoint, `http://127.0.0.1:${address.port}`) };
  }

  async #handle(incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> {
    // A peer that goes away in the middle is what this is for.
    for (const stream of [incoming, outgoing]) stream.on('error', () => undefined);
    const fault = this.outage ? 'outage' : this.chooseFault(incoming.method ?? '', incoming.url ?? '');
    this.counts.set(fault ?? 'passed', (this.counts.get(fault ?? 'passed') ?? 0) + 1);
    switch (fault) {
      case 'outage':
      case 'connection refused':
        incoming.socket.destroy();
        return;
      case 'internal error':
        return refuse(incoming, outgoing, 500, 'InternalError');
      case 'throttled':
        return refuse(incoming, outgoing, 503, 'SlowDown');
      case 'no answer':
        incoming.resume();
        return;
      case 'request cut in mid-body':
        incoming.once('data', () => incoming.socket.destroy());
        incoming.once('end', () => incoming.socket.destroy());
        return;
      default:
        await this.#pass(incoming, outgoing, fault);
    }
  }

  async #pass(incoming: IncomingMessage, outgoing: ServerResponse, fault: Fault | undefined): Promise<void> {
    const { method, url: path, headers } = incoming;
    const onward = request({ host: this.#target.hostname, port: this.#target.port, method, path, headers });
    onward.on('error', () => outgoing.destroy());
    incoming.pipe(onward);
    const [answer] = (await once(onward, 'response').catch(() => [])) as [IncomingMessage?];
    if (answer === undefined) return;
    const pieces: Buffer[] = [];
    for await (const piece of answer) pieces.push(piece as Buffer);
    const body = Buffer.concat(pieces);
    if (fault === 'stored, but the answer is lost') {
      outgoing.destroy();
      return;
    }
    if (fault === 'wrong bytes' && body.length > 0) body[body.length >> 1] ^= 0x40;
    outgoing.writeHead(answer.statusCode ?? 500, { ...answer.headers, 'content-length': String(body.length) });
    const half = body.length >> 1;
    switch (fault) {
      case 'answer cut in mid-body':
        outgoing.write(body.subarray(0, half), () => outgoing.destroy());
        return;
      case 'answer that stops in mid-body':
        outgoing.write(body.subarray(0, half));
        return;
      case 'slow body':
        for (let at = 0; at < body.length; at += Math.ceil(body.length / 20)) {
          outgoing.write(body.subarray(at, at + Math.ceil(body.length / 20)));
          await new Promise((resolve) => setTimeout(resolve, 20));
        }
        outgoing.end();
        return;
      default:
        outgoing.end(body);
    }
  }
}

function refuse(incoming: IncomingMessage, outgoing: ServerResponse, status: number, code: string): void {
  incoming.resume();
  incoming.once('end', () => {
    outgoing.writeHead(status, { 'content-type': 'application/xml' });
    outgoing.end(`<?xml version="1.0"?><Error><Code>${code}</Code><Message>Please try again.</Message></Error>`);
  });
}
