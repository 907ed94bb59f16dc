import { createHash, createHmac, createSecretKey, hash, timingSafeEqual } from 'node:crypto';
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
    // A key as an object: from bytes Node makes one at three times the price.
    this.#hash = secret === undefined ? createHash('sha256') : createHmac('sha256', createSecretKey(toBuffer(secret)));
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

/** What a request says of who signed it for what; nothing of it is proven yet. */
export type Claim = Scope & {
  signedHeaders: ReadonlySet<string>;
  signature: string;
  /** Of temporary credentials. */
  sessionToken: string | undefined;
  /** Of the scope: `20190529`. */
  day: string;
  /** `20190529T123456Z`. */
  date: string;
  /** Of a presigned URL: how long it is good for, in seconds. */
  expires: number | undefined;
};

/** What a signature is checked against. */
export type Credentials = { secretAccessKey: string; session: { token: string; expiresAt: Date } | undefined };

const LONGEST_PRESIGNED_SECONDS = 7 * 24 * 60 * 60;
const SIGNING_PARAMETERS = [
  'X-Amz-Algorithm',
  'X-Amz-Credential',
  'X-Amz-Date',
  'X-Amz-Expires',
  'X-Amz-SignedHeaders',
  'X-Amz-Signature',
  'X-Amz-Security-Token',
];

/** Reads the Authorization header, or the query of a presigned URL. @throws ApiError IncompleteSignature, MissingParameter */
export function readClaim(request: Pick<SignedRequest, 'headers' | 'query'>): Claim {
  const { headers, query } = request;
  if (headers.authorization === undefined && query.has('X-Amz-Signature')) return readPresigned(query);
  if (headers.authorization === undefined) throw wireErrors.missingParameter('AWSAccessKeyId');
  const match = /^AWS4-HMAC-SHA256\s+(.*)$/.exec(headers.authorization);
  if (match === null)
    throw wireErrors.incompleteSignature("The Authorization header must begin with 'AWS4-HMAC-SHA256'.");
  const fields = new Map(match[1].split(',').map((field) => splitOnce(field.trim(), '=')));
  return {
    ...readCredential(fields.get('Credential'), fields.get('SignedHeaders'), fields.get('Signature')),
    sessionToken: headers['x-amz-security-token'],
    date: headers['x-amz-date'] ?? '',
    expires: undefined,
  };
}

function readPresigned(query: URLSearchParams): Claim {
  for (const name of SIGNING_PARAMETERS) {
    if (query.getAll(name).length > 1) throw wireErrors.incompleteSignature(`'${name}' is given twice.`);
  }
  if (query.get('X-Amz-Algorithm') !== 'AWS4-HMAC-SHA256') {
    throw wireErrors.incompleteSignature("'X-Amz-Algorithm' must be 'AWS4-HMAC-SHA256'.");
  }
  const expires = query.get('X-Amz-Expires') ?? '';
  if (!/^\d{1,6}$/.test(expires) || Number(expires) < 1 || Number(expires) > LONGEST_PRESIGNED_SECONDS) {
    throw wireErrors.incompleteSignature(`'X-Amz-Expires' must be from 1 to ${LONGEST_PRESIGNED_SECONDS} seconds.`);
  }
  return {
    ...readCredential(
      query.get('X-Amz-Credential') ?? undefined,
      query.get('X-Amz-SignedHeaders') ?? undefined,
      query.get('X-Amz-Signature') ?? undefined,
    ),
    sessionToken: query.get('X-Amz-Security-Token') ?? undefined,
    date: query.get('X-Amz-Date') ?? '',
    expires: Number(expires),
  };
}

function readCredential(
  text: string | undefined,
  signedHeaders: string | undefined,
  signature: string | undefined,
): Pick<Claim, 'accessKeyId' | 'day' | 'region' | 'service' | 'signedHeaders' | 'signature'> {
  const credential = text?.split('/') ?? [];
  const whole = credential.length === 5 && credential[4] === 'aws4_request';
  if (!whole || signedHeaders === undefined || signature === undefined) {
    throw wireErrors.incompleteSignature(
      "A signature needs 'Credential' (key/date/region/service/aws4_request), 'SignedHeaders' and 'Signature'.",
    );
  }
  const [accessKeyId, day, region, service] = credential;
  return { accessKeyId, day, region, service, signedHeaders: new Set(signedHeaders.split(';')), signature };
}

/**
 * Checks a request's Signature Version 4, in the header or in the query (a presigned URL): the request is signed again
 * with the key's secret, over just the headers that the client signed, and the two signatures are compared in constant
 * time.
 * @param credentials of the key that the request names; undefined for an unknown one
 * @throws ApiError AuthFailure, RequestExpired, IncompleteSignature
 * @see AWS, "Signature Version 4 signing process"
 */
export async function verifySignature(
  request: SignedRequest,
  claim: Claim,
  credentials: Credentials | undefined,
  now: Date,
): Promise<void> {
  const signedAt = parseDate(claim.date);
  const dated = claim.expires !== undefined || claim.signedHeaders.has('x-amz-date');
  if (signedAt === undefined || !claim.signedHeaders.has('host') || !dated) {
    throw wireErrors.incompleteSignature("'host' and 'x-amz-date' (like 20190529T123456Z) must be signed.");
  }
  // The scope is not part of what is signed but by its parts: the day that it names must be the request's.
  if (claim.day !== claim.date.slice(0, 8)) throw wireErrors.authFailure('signature');
  const age = now.getTime() - signedAt.getTime();
  const oldest = claim.expires === undefined ? SKEW_MILLISECONDS : claim.expires * 1000;
  if (age > oldest || age < -SKEW_MILLISECONDS) throw wireErrors.requestExpired();
  const headers: Record<string, string> = {};
  for (const name of claim.signedHeaders) {
    const value = request.headers[name];
    if (value === undefined) throw wireErrors.incompleteSignature(`The signed header '${name}' is not in the request.`);
    headers[name] = value;
  }
  // The signature covers the hash that this header states; the hash must be the body's.
  const stated = request.headers['x-amz-content-sha256'];
  // Services that carry data may leave the body out of the signature; it has a checksum of its own.
  const unsigned = stated === 'UNSIGNED-PAYLOAD' && UNSIGNED_PAYLOAD_SERVICES.has(claim.service);
  if (stated !== undefined && !unsigned && stated !== hash('sha256', request.body, 'hex')) {
    throw wireErrors.authFailure('signature');
  }
  const expected = await signatureOf(request, claim, credentials, headers, signedAt);
  if (credentials === undefined) throw wireErrors.authFailure('key');
  if (!sameText(expected, claim.signature)) throw wireErrors.authFailure('signature');
  const { session } = credentials;
  if (session === undefined) return;
  // After the signature: whoever has no secret learns nothing about tokens.
  const signedToken = claim.expires !== undefined || claim.signedHeaders.has('x-amz-security-token');
  if (!signedToken || !sameText(session.token, claim.sessionToken ?? '')) throw wireErrors.authFailure('token');
  if (now > session.expiresAt) throw wireErrors.sessionExpired();
}

async function signatureOf(
  request: SignedRequest,
  claim: Claim,
  credentials: Credentials | undefined,
  headers: Record<string, string>,
  signingDate: Date,
): Promise<string> {
  const query: Record<string, string[]> = {};
  for (const name of request.query.keys()) query[name] = request.query.getAll(name);
  const presigned = claim.expires !== undefined;
  if (presigned) for (const name of SIGNING_PARAMETERS) delete query[name];
  const signer = new SignatureV4({
    credentials: {
      accessKeyId: claim.accessKeyId,
      // An unknown key costs the same time as a wrong signature.
      secretAccessKey: credentials?.secretAccessKey ?? 'no such key',
      ...(presigned && claim.sessionToken !== undefined ? { sessionToken: claim.sessionToken } : {}),
    },
    region: claim.region,
    service: claim.service,
    sha256: Sha256,
    applyChecksum: false,
  });
  const unsigned = {
    method: request.method,
    protocol: 'http:',
    hostname: headers.host,
    path: request.path,
    query,
    headers,
    body: request.body,
  };
  const signableHeaders = new Set(claim.signedHeaders);
  if (claim.expires !== undefined) {
    const signed = await signer.presign(unsigned, {
      signingDate,
      signableHeaders,
      unhoistableHeaders: signableHeaders,
      expiresIn: claim.expires,
    });
    return String(signed.query?.['X-Amz-Signature'] ?? '');
  }
  const signed = await signer.sign(unsigned, { signingDate, signableHeaders });
  return /Signature=([0-9a-f]+)$/.exec(signed.headers.authorization ?? '')?.[1] ?? '';
}

/** Compares in a time that does not tell where two texts differ. */
export function sameText(a: string, b: string): boolean {
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
