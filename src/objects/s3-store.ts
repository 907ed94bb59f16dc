import { Readable } from 'node:stream';
import {
  DeleteObjectCommand,
  GetObjectCommand,
  NoSuchKey,
  PutObjectCommand,
  paginateListObjectsV2,
  S3Client,
  S3ServiceException,
} from '@aws-sdk/client-s3';
import { giveBack } from '../types/memory.ts';
import { ObjectNotFoundError, type ObjectStore, ObjectStoreRefusedError, ObjectTooShortError } from './object-store.ts';

export type S3Location = {
  bucket: string;
  /** Ends with a slash, or is empty. */
  prefix: string;
  endpoint: string | undefined;
  region: string;
  pathStyle: boolean;
  attempts: number;
  /** After so long without a byte in either direction a request is given up, to be tried again. */
  timeoutMilliseconds: number;
};

/** A request has so many times the timeout from its beginning to its end, its repetitions by the client included. */
const WHOLE_REQUEST = 20;

/** Objects in a bucket of any S3-compatible store; credentials come from the standard AWS chain. */
export class S3Store implements ObjectStore {
  readonly url: string;
  readonly #location: S3Location;
  readonly #client: S3Client;

  constructor(url: string, location: S3Location) {
    this.url = url;
    this.#location = location;
    this.#client = new S3Client({
      region: location.region,
      ...(location.endpoint === undefined ? {} : { endpoint: location.endpoint }),
      forcePathStyle: location.pathStyle,
      // Blocks and manifests carry SHA-256 of their own, checked on each read; not all S3 servers know S3's newer ones.
      requestChecksumCalculation: 'WHEN_REQUIRED',
      responseChecksumValidation: 'WHEN_REQUIRED',
      maxAttempts: location.attempts,
      requestHandler: {
        connectionTimeout: location.timeoutMilliseconds,
        socketTimeout: location.timeoutMilliseconds,
      },
    });
  }

  async put(key: string, pieces: readonly Uint8Array[]): Promise<void> {
    const body = pieces.length === 1 ? pieces[0] : Buffer.concat(pieces);
    await this.#ask(key, (Bucket, Key, options) =>
      this.#client.send(new PutObjectCommand({ Bucket, Key, Body: body, ContentLength: body.byteLength }), options),
    );
  }

  async get(key: string): Promise<Buffer> {
    return this.#ask(key, async (Bucket, Key, options) => {
      const answer = await this.#client.send(new GetObjectCommand({ Bucket, Key }), options);
      return bodyOf(answer.Body);
    });
  }

  async getRange(key: string, offset: number, length: number): Promise<Buffer> {
    return this.#ask(key, async (Bucket, Key, options) => {
      const Range = `bytes=${offset}-${offset + length - 1}`;
      const bytes = await bodyOf((await this.#client.send(new GetObjectCommand({ Bucket, Key, Range }), options)).Body);
      if (bytes.length < length) throw new ObjectTooShortError(this.url, key);
      if (bytes.length > length) {
        throw new Error(`object '${key}' in ${this.url}: asked for ${length} bytes at ${offset}, got ${bytes.length}`);
      }
      return bytes;
    });
  }

  async *list(prefix: string): AsyncIterable<{ key: string; bytes: number }> {
    const { bucket, prefix: root } = this.#location;
    for await (const page of paginateListObjectsV2(
      { client: this.#client },
      { Bucket: bucket, Prefix: `${root}${prefix}` },
    )) {
      for (const object of page.Contents ?? []) {
        if (object.Key !== undefined) yield { key: object.Key.slice(root.length), bytes: object.Size ?? 0 };
      }
    }
  }

  async remove(key: string): Promise<void> {
    await this.#ask(key, (Bucket, Key, options) =>
      this.#client.send(new DeleteObjectCommand({ Bucket, Key }), options),
    );
  }

  /** A put is one request: what was cut short was never there. */
  async removeUnfinished(): Promise<void> {}

  async #ask<Answer>(
    key: string,
    request: (bucket: string, key: string, options: { abortSignal: AbortSignal }) => Promise<Answer>,
  ): Promise<Answer> {
    try {
      // A body that drips for ever never stands still: the whole has an end, too.
      const abortSignal = AbortSignal.timeout(this.#location.timeoutMilliseconds * WHOLE_REQUEST);
      return await request(this.#location.bucket, `${this.#location.prefix}${key}`, { abortSignal });
    } catch (error) {
      if (error instanceof NoSuchKey) throw new ObjectNotFoundError(this.url, key);
      // What was asked for begins where the object has ended already.
      if (error instanceof S3ServiceException && error.name === 'InvalidRange') {
        throw new ObjectTooShortError(this.url, key);
      }
      if (error instanceof S3ServiceException && isFinal(error)) {
        throw new ObjectStoreRefusedError(
          `the object store ${this.url} refuses '${key}': ${error.name}: ${error.message}`,
        );
      }
      throw error;
    }
  }
}

/** 4xx answers stay what they are, but for time-outs, throttling, and clocks that may be set right. */
function isFinal(error: S3ServiceException): boolean {
  const status = error.$metadata.httpStatusCode ?? 500;
  return (
    status >= 400 && status < 500 && ![408, 409, 425, 429].includes(status) && error.name !== 'RequestTimeTooSkewed'
  );
}

async function bodyOf(body: unknown): Promise<Buffer> {
  if (!(body instanceof Readable)) return Buffer.alloc(0);
  const pieces: Buffer[] = await body.toArray();
  const bytes = Buffer.concat(pieces);
  // Each is memory of its own; left to V8, a hundred MiB of them are there before it looks.
  for (const piece of pieces) giveBack(piece);
  return bytes;
}
