import { createHash } from 'node:crypto';
import { SignatureV4 } from '@smithy/signature-v4';
import { Sha256 } from '../../src/wire/signature.ts';

export type Credentials = { accessKeyId: string; secretAccessKey: string; sessionToken?: string };

/** A request before it is signed, or after. */
export type Request = {
  method: string;
  path: string;
  query: [string, string][];
  headers: Record<string, string>;
  body: string | Buffer;
};

export type Signing = {
  credentials: Credentials;
  service?: string;
  region?: string;
  at?: Date;
  /** In the query, good for so many seconds. */
  presigned?: number;
};

export type Answer = { status: number; code: string; body: string; bytes: Buffer };

/** An EC2 or STS call, as its parameters. */
export function form(action: string, parameters: Record<string, string> = {}, version = '2016-11-15'): Request {
  return {
    method: 'POST',
    path: '/',
    query: [],
    headers: { 'content-type': 'application/x-www-form-urlencoded' },
    body: new URLSearchParams({ Action: action, Version: version, ...parameters }).toString(),
  };
}

/** The same with its parameters in the URL. */
export function url(action: string, parameters: Record<string, string> = {}, version = '2016-11-15'): Request {
  const query = Object.entries({ Action: action, Version: version, ...parameters });
  return { method: 'GET', path: '/', query, headers: {}, body: '' };
}

/** A call of a service that speaks JSON over paths. */
export function rest(method: string, path: string, query: Record<string, string> = {}, body = ''): Request {
  return { method, path, query: Object.entries(query), headers: {}, body };
}

/** Signs a request as a client does. */
export async function sign(apiUrl: string, request: Request, signing: Signing): Promise<Request> {
  const { host, hostname } = new URL(apiUrl);
  const signer = new SignatureV4({
    credentials: signing.credentials,
    region: signing.region ?? 'us-east-1',
    service: signing.service ?? 'ec2',
    sha256: Sha256,
    applyChecksum: false,
  });
  const query: Record<string, string[]> = {};
  for (const [name, value] of request.query) query[name] = [...(query[name] ?? []), value];
  const unsigned = {
    method: request.method,
    protocol: 'http:',
    hostname,
    path: request.path,
    query,
    headers: { host, ...request.headers },
    body: request.body,
  };
  const signingDate = signing.at ?? new Date();
  const signed =
    signing.presigned === undefined
      ? await signer.sign(unsigned, { signingDate })
      : await signer.presign(unsigned, { signingDate, expiresIn: signing.presigned });
  const pairs = Object.entries(signed.query ?? {}).flatMap(([name, values]): [string, string][] =>
    [values ?? []].flat().map((value) => [name, value]),
  );
  return { ...request, query: pairs, headers: signed.headers };
}

/** Sends a request just as it is: not a byte is put right. */
export async function send(apiUrl: string, request: Request): Promise<Answer> {
  const { hostname, port } = new URL(apiUrl);
  const { request: httpRequest } = await import('node:http');
  const target = `${request.path}${request.query.length > 0 ? `?${new URLSearchParams(request.query)}` : ''}`;
  return new Promise((resolve, reject) => {
    const sending = httpRequest(
      { hostname, port, method: request.method, path: target, headers: request.headers },
      (response) => {
        const pieces: Buffer[] = [];
        response.on('data', (piece: Buffer) => pieces.push(piece));
        response.on('end', () => {
          const bytes = Buffer.concat(pieces);
          const body = bytes.toString('utf8');
          const code =
            /<Code>([^<]*)<\/Code>/.exec(body)?.[1] ??
            response.headers['x-amzn-errortype']?.toString() ??
            (response.statusCode === 200 || body === '' ? '' : (JSON.parse(body) as { code: string }).code);
          resolve({ status: response.statusCode ?? 0, code, body, bytes });
        });
      },
    );
    sending.on('error', reject);
    sending.end(request.body);
  });
}

export function sha256Base64(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('base64');
}
