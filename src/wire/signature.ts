import { createHash, createHmac, timingSafeEqual } from 'node:crypto';
import { SignatureV4 } from '@smithy/signature-v4';
import { wireErrors } from './api-error.ts';

export type SignedRequest = {
  method: string;
  path: string;
  query: URLSearchParams;
  headers: Record<string, string>;
  body: Buffer;
};

export type Scope = { accessKeyId: string; region: string; service: string };

const UNSIGNED_PAYLOAD_SERVICES = new Set(['ebs']);

/** How far a request's clock may be off. */
const SKEW_MILLISECONDS = 5 * 60 * 1000;

/** Node’s SHA-256 and HMAC in the form that the signer takes. */
export class Sha256 {
  #hash;
  constructor(secret?: string | ArrayBuffer | ArrayBufferView) {
    this.#hash = secret === undefined ? createHash('sha256') : createHmac('sha256', toBuffer(secret));
  }
  update(data: string | ArrayBuffer | ArrayBufferView): void {
    this.#hash.update(toBuffer(data));
  }
  async digest(): Promise<Uint8Array> {
    return this.#hash.digest();
  }
  reset(): void {
    this.#hash = createHash('sha256');
  }
}

/** What the Authorization header says of who signed for what; nothing of it is proven yet. @throws IncompleteSignature */
export function readScope(headers: Record<string, string>): Scope & { signedHeaders: Set<string>; signature: string } {
  const header = headers.authorization;
  if (header === undefined) throw wireErrors.missingParameter('AWSAccessKeyId');
  const match = /^AWS4-HMAC-SHA256\s+(.*)$/.exec(header);
  if (match === null)
    throw wireErrors.incompleteSignature("The Authorization header must begin with 'AWS4-HMAC-SHA256'.");
  const fields = new Map(match[1].split(',').map((field) => splitOnce(field.trim(), '=')));
  const credential = fields.get('Credential')?.split('/') ?? [];
  const signedHeaders = fields.get('SignedHeaders');
  const signature = fields.get('Signature');
  if (
    credential.length !== 5 ||
    credential[4] !== 'aws4_request' ||
    signedHeaders === undefined ||
    signature === undefined
  ) {
    throw wireErrors.incompleteSignature(
      "The Authorization header needs 'Credential' (key/date/region/service/aws4_request), 'SignedHeaders' and 'Signature'.",
    );
  }
  const [accessKeyId, , region, service] = credential;
  return { accessKeyId, region, service, signedHeaders: new Set(signedHeaders.split(';')), signature };
}

/**
 * Checks a request's Signature Version 4, header form: the request is signed again with the key's secret, over just the
 * headers that the client signed, and the two signatures are compared in constant time.
 * @param secret of the key that the request names; undefined for an unknown one
 * @throws ApiError AuthFailure, RequestExpired, IncompleteSignature
 * @see AWS, "Signature Version 4 signing process"
 */
export async function verifySignature(request: SignedRequest, secret: string | undefined, now: Date): Promise<Scope> {
  const claimed = readScope(request.headers);
  const date = request.headers['x-amz-date'] ?? '';
  const signedAt = parseDate(date);
  if (signedAt === undefined || !claimed.signedHeaders.has('host') || !claimed.signedHeaders.has('x-amz-date')) {
    throw wireErrors.incompleteSignature("The headers 'host' and 'x-amz-date' (like 20190529T123456Z) must be signed.");
  }
  if (Math.abs(now.getTime() - signedAt.getTime()) > SKEW_MILLISECONDS) throw wireErrors.requestExpired();
  const headers: Record<string, string> = {};
  for (const name of claimed.signedHeaders) {
    const value = request.headers[name];
    if (value === undefined) throw wireErrors.incompleteSignature(`The signed header '${name}' is not in the request.`);
    headers[name] = value;
  }
  // The signature covers the hash that this header states; the hash must be the body's.
  const stated = request.headers['x-amz-content-sha256'];
  const bodyHash = createHash('sha256').update(request.body).digest('hex');
  // Services that carry data may leave the body out of the signature; it has a checksum of its own.
  const unsigned = stated === 'UNSIGNED-PAYLOAD' && UNSIGNED_PAYLOAD_SERVICES.has(claimed.service);
  if (stated !== undefined && stated !== bodyHash && !unsigned) throw wireErrors.authFailure();
  const signer = new SignatureV4({
    // An unknown key costs the same time as a wrong signature, and gets the same answer.
    credentials: { accessKeyId: claimed.accessKeyId, secretAccessKey: secret ?? 'no such key' },
    region: claimed.region,
    service: claimed.service,
    sha256: Sha256,
    applyChecksum: false,
  });
  const query: Record<string, string[]> = {};
  for (const name of request.query.keys()) query[name] = request.query.getAll(name);
  const signed = await signer.sign(
    {
      method: request.method,
      protocol: 'http:',
      hostname: headers.host,
      path: request.path,
      query,
      headers,
      body: request.body,
    },
    { signingDate: signedAt, signableHeaders: claimed.signedHeaders },
  );
  const expected = /Signature=([0-9a-f]+)$/.exec(signed.headers.authorization ?? '')?.[1] ?? '';
  if (secret === undefined || !sameText(expected, claimed.signature)) throw wireErrors.authFailure();
  return { accessKeyId: claimed.accessKeyId, region: claimed.region, service: claimed.service };
}

function sameText(a: string, b: string): boolean {
  const left = Buffer.from(a);
  const right = Buffer.from(b);
  return left.length === right.length && timingSafeEqual(left, right);
}

function parseDate(text: string): Date | undefined {
  const parts = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/.exec(text);
  if (parts === null) return undefined;
  const [, year, month, day, hour, minute, second] = parts;
  return new Date(`${year}-${month}-${day}T${hour}:${minute}:${second}Z`);
}

function splitOnce(text: string, separator: string): [string, string] {
  const at = text.indexOf(separator);
  return at === -1 ? [text, ''] : [text.slice(0, at), text.slice(at + 1)];
}

function toBuffer(data: string | ArrayBuffer | ArrayBufferView): Buffer {
  if (typeof data === 'string') return Buffer.from(data);
  if (data instanceof ArrayBuffer) return Buffer.from(data);
  return Buffer.from(data.buffer, data.byteOffset, data.byteLength);
}
