import { readFileSync } from 'node:fs';
import { request as httpRequest, type IncomingMessage } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { SignatureV4 } from '@smithy/signature-v4';
import { Sha256 } from '../wire/signature.ts';

export type AdminSettings = {
  apiUrl: string;
  region: string;
  credentials: { accessKeyId: string; secretAccessKey: string };
  /** The server's own certificate file, where it speaks HTTPS: that one is believed, whatever its name. */
  certificate?: string | undefined;
};

/** No server answers: it is not there, for now at least. */
export class ServerAwayError extends Error {}

/** It answers, and does not do it. */
export class RefusedError extends Error {
  readonly code: string;
  readonly status: number;

  constructor(code: string, message: string, status: number) {
    super(`${code}: ${message}`);
    this.code = code;
    this.status = status;
  }

  /** It may do it later: too much is asked of it, or something is wrong with it. */
  get mayPass(): boolean {
    return this.status >= 500;
  }
}

/** Asks the server for what EC2's API has no words for. */
export class AdminClient {
  readonly #settings: AdminSettings;

  constructor(settings: AdminSettings) {
    this.#settings = settings;
  }

  /** @throws ServerAwayError; RefusedError with the server's own message */
  async ask<Answer>(verb: string, input: object = {}): Promise<Answer> {
    const { apiUrl, region, credentials } = this.#settings;
    const url = new URL(`/cleancut/${verb}`, apiUrl);
    const body = JSON.stringify(input);
    const signer = new SignatureV4({ credentials, region, service: 'cleancut', sha256: Sha256 });
    const signed = await signer.sign({
      method: 'POST',
      protocol: url.protocol,
      hostname: url.hostname,
      path: url.pathname,
      headers: {
        host: url.host,
        'content-type': 'application/json',
        'content-length': String(Buffer.byteLength(body)),
      },
      body,
    });
    const { status, text } = await this.#post(url, signed.headers, body).catch((error: Error) => {
      throw new ServerAwayError(`no server answers at ${apiUrl} (${error.message})`);
    });
    const answer = JSON.parse(text) as Answer & { code: string; message: string };
    if (status !== 200) throw new RefusedError(answer.code, answer.message, status);
    return answer;
  }

  #post(url: URL, headers: Record<string, string>, body: string): Promise<{ status: number; text: string }> {
    const { certificate } = this.#settings;
    const trust =
      certificate === undefined
        ? {}
        : { ca: readFileSync(certificate), allowPartialTrustChain: true, checkServerIdentity: () => undefined };
    return new Promise((resolve, reject) => {
      const receive = (response: IncomingMessage): void => {
        let text = '';
        response.setEncoding('utf8');
        response.on('data', (piece: string) => {
          text += piece;
        });
        response.on('end', () => resolve({ status: response.statusCode ?? 0, text }));
        response.on('error', reject);
      };
      const options = { method: 'POST', headers };
      const request =
        url.protocol === 'https:'
          ? httpsRequest(url, { ...options, ...trust }, receive)
          : httpRequest(url, options, receive);
      request.on('error', reject);
      request.end(body);
    });
  }
}
