import { createHash } from 'node:crypto';
import { IncomingMessage } from 'node:http';
import { Readable } from 'node:stream';
import {
  DeleteObjectCommand,
  DeleteObjectsCommand,
  GetObjectCommand,
  type GetObjectCommandOutput,
  NoSuchKey,
  PutObjectCommand,
  paginateListObjectsV2,
  S3Client,
  S3ServiceException,
} from '@aws-sdk/client-s3';
import { eachUntilFailure } from '../types/each-until-failure.ts';
import { readBody } from '../types/http-body.ts';
import { MIB } from '../types/units.ts';
import { ObjectNotFoundError, type ObjectStore, ObjectStoreRefusedError, ObjectTooShortError } from './object-store.ts';
import { PiecesBody } from './pieces-body.ts';
import { removeEach, removeListed } from './remove-each.ts';

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

/**
 * So many are removed with one request, of which some are under way: uploads wait for a collection's removals, and one by one a hundred
 * thousand took minutes. (S3 takes a thousand; who removes them one after the other must have answered before the timeout.)
 */
const BATCH_KEYS = 250;
const BATCHES_AT_ONCE = 4;
const NOT_IMPLEMENTED = 501;

/** Smaller ones are copied into one piece. */
const STREAMED_BYTES = MIB;

/** What the client would say on the console of this process; whoever asked is told, too. */
const SILENT = { trace() {}, debug() {}, info() {}, warn() {}, error() {} };

/** Objects in a bucket of any S3-compatible store; credentials come from the standard AWS chain. */
export class S3Store implements ObjectStore {
  readonly url: string;
  readonly #location: S3Location;
  readonly #client: S3Client;
  /** Whether the last large object was not taken: who refuses it may hang up before the reason could be read. */
  #asksFirst = false;
  /** Whether the server was asked to remove several with one request, and would not. */
  #removesOneByOne = false;

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
      // A client that asks before each pack whether it may send it has a connection of its own for each: the handshakes, and
      // TCP's slow start, were half of the time to a store that is 30 ms away. (Stores that do not know the question would be
      // waited for six seconds.)
      expectContinueHeader: false,
      maxAttempts: location.attempts,
      logger: SILENT,
      requestHandler: {
        connectionTimeout: location.timeoutMilliseconds,
        socketTimeout: location.timeoutMilliseconds,
      },
    });
  }

  async put(key: string, pieces: readonly Uint8Array[]): Promise<void> {
    const length = pieces.reduce((sum, { byteLength }) => sum + byteLength, 0);
    await (length < STREAMED_BYTES ? this.#putCopy(key, pieces) : this.#putStream(key, pieces));
  }

  async #putCopy(key: string, pieces: readonly Uint8Array[]): Promise<void> {
    const Body = Buffer.concat(pieces);
    await this.#ask(key, (Bucket, Key, options) =>
      this.#client.send(new PutObjectCommand({ Bucket, Key, Body, ContentLength: Body.byteLength }), options),
    );
  }

  /** A pack is not copied as a whole: page by page of new memory, that took longer than to send it. */
  async #putStream(key: string, pieces: readonly Uint8Array[]): Promise<void> {
    const body = new PiecesBody(pieces);
    const sha256 = body.sha256();
    const asksFirst = this.#asksFirst;
    try {
      await this.#ask(key, async (Bucket, Key, options) => {
        const command = new PutObjectCommand({ Bucket, Key, Body: body, ContentLength: body.bytes });
        command.middlewareStack.add(
          (next) => (order) => {
            const { headers } = order.request as { headers: Record<string, string> };
            // The client signs what is in this header. Of a stream it would sign no hash, and the store would check none.
            headers['x-amz-content-sha256'] = sha256;
            if (asksFirst) headers.Expect = '100-continue';
            return next(order);
          },
          { step: 'build' },
        );
        await this.#client.send(command, options);
        await body.sent();
      });
      this.#asksFirst = false;
    } catch (error) {
      this.#asksFirst = true;
      throw error;
    } finally {
      // However it ended: the caller's next bytes may come where these lie.
      body.abandon();
    }
  }

  async get(key: string): Promise<Buffer> {
    return this.#ask(key, async (Bucket, Key, options) => {
      return bodyOf(await this.#client.send(new GetObjectCommand({ Bucket, Key }), options));
    });
  }

  async getRange(key: string, offset: number, length: number): Promise<Buffer> {
    return this.#ask(key, async (Bucket, Key, options) => {
      const Range = `bytes=${offset}-${offset + length - 1}`;
      const bytes = await bodyOf(await this.#client.send(new GetObjectCommand({ Bucket, Key, Range }), options));
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

  async remove(keys: readonly string[]): Promise<void> {
    const batches: (readonly string[])[] = [];
    for (let at = 0; at < keys.length; at += BATCH_KEYS) batches.push(keys.slice(at, at + BATCH_KEYS));
    await eachUntilFailure(batches, BATCHES_AT_ONCE, async (batch) => {
      // What could not be removed together is tried by itself, as patiently as any request, and may say why.
      await removeEach(await this.#removeTogether(batch), (key) => this.#removeOne(key));
    });
  }

  /** @returns those of them that may still be there */
  async #removeTogether(keys: readonly string[]): Promise<readonly string[]> {
    if (keys.length === 1 || this.#removesOneByOne) return keys;
    const root = this.#location.prefix;
    const Delete = { Objects: keys.map((key) => ({ Key: `${root}${key}` })), Quiet: true };
    try {
      const { Errors = [] } = await this.#ask(keys[0], (Bucket, _, options) => {
        const command = new DeleteObjectsCommand({ Bucket, Delete });
        // Stores that do not know S3's newer checksums want this one.
        command.middlewareStack.add(
          (next) => (order) => {
            const { headers, body } = order.request as { headers: Record<string, string>; body: string };
            headers['content-md5'] = createHash('md5').update(body).digest('base64');
            return next(order);
          },
          { step: 'build' },
        );
        return this.#client.send(command, options);
      });
      const failed = new Set(Errors.map(({ Key }) => Key));
      return failed.has(undefined) ? keys : keys.filter((key) => failed.has(`${root}${key}`));
    } catch (error) {
      const isUnknown = (error as S3ServiceException).$metadata?.httpStatusCode === NOT_IMPLEMENTED;
      if (!isUnknown && !(error instanceof ObjectStoreRefusedError)) throw error;
      // Not every S3 server can do it; if it is a permission that is wanting, that shows at the first.
      this.#removesOneByOne = true;
      return keys;
    }
  }

  async #removeOne(key: string): Promise<void> {
    await this.#ask(key, (Bucket, Key, options) =>
      this.#client.send(new DeleteObjectCommand({ Bucket, Key }), options),
    );
  }

  removeFolder(folder: string): Promise<void> {
    return removeListed(this, folder);
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

async function bodyOf({ Body: body, ContentLength: length }: GetObjectCommandOutput): Promise<Buffer> {
  if (!(body instanceof Readable)) return Buffer.alloc(0);
  if (length === undefined) return Buffer.concat(await body.toArray());
  // An answer that ends early is an error of the connection.
  return readBody(body, length, body instanceof IncomingMessage ? body.socket : undefined);
}
