import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { DirectoryStore } from './directory-store.ts';
import type { ObjectStore } from './object-store.ts';

const SETTINGS = ['endpoint', 'region', 'path-style', 'timeout'];
const TIMEOUT_SECONDS = 30;
const ATTEMPTS = 5;

export type StoreOptions = {
  /** How often a request to a server is made before it fails; one is enough for who tries again himself. */
  attempts?: number;
  /** See DirectoryStore. */
  waits?: boolean;
};

/**
 * Opens the store that a URL names: `file://PATH`, or
 * `s3://BUCKET/PREFIX?endpoint=…&region=…&path-style=true&timeout=SECONDS` (see S3Location).
 * @throws when the URL is neither, with a message for the operator
 */
export async function openObjectStore(url: string, options: StoreOptions = {}): Promise<ObjectStore> {
  const { attempts = ATTEMPTS, waits = false } = options;
  const parsed = URL.parse(url);
  switch (parsed?.protocol) {
    case 'file:':
      return new DirectoryStore(pathOf(parsed), waits);
    case 's3:': {
      // Loaded where it is used: the S3 client takes a tenth of a second to import.
      const { S3Store } = await import('./s3-store.ts');
      const { searchParams } = parsed;
      for (const name of searchParams.keys()) {
        if (!SETTINGS.includes(name)) {
          throw new Error(`object store ${url}: unknown setting '${name}'; known are ${SETTINGS.join(', ')}`);
        }
      }
      return new S3Store(url, {
        bucket: parsed.hostname,
        prefix: prefixOf(parsed),
        endpoint: searchParams.get('endpoint') ?? undefined,
        region: searchParams.get('region') ?? process.env.AWS_REGION ?? 'us-east-1',
        pathStyle: searchParams.get('path-style') === 'true',
        attempts,
        timeoutMilliseconds: secondsOf(url, searchParams.get('timeout')) * 1000,
      });
    }
    default:
      throw new Error(
        `object store '${url}': give file:///PATH or s3://BUCKET/PREFIX?endpoint=…&region=…&path-style=true`,
      );
  }
}

/** Whether two URLs name one store, however they are written. */
export function isSameStore(one: string, other: string): boolean {
  const [first, second] = [placeOf(one), placeOf(other)];
  return first !== undefined && first === second;
}

/** @returns undefined for a URL of no store */
function placeOf(url: string): string | undefined {
  const parsed = URL.parse(url);
  switch (parsed?.protocol) {
    case 'file:':
      return path.resolve(pathOf(parsed));
    case 's3:':
      return `${parsed.searchParams.get('endpoint') ?? ''} ${parsed.hostname} ${prefixOf(parsed)}`;
    default:
      return undefined;
  }
}

function prefixOf(url: URL): string {
  const prefix = url.pathname.replace(/^\/+|\/+$/g, '');
  return prefix === '' ? '' : `${prefix}/`;
}

function pathOf(url: URL): string {
  // `file://objects/…` has a host, and no path of the operator's.
  if (url.host !== '')
    throw new Error(`object store '${url.href}': give an absolute path, with three slashes: file:///PATH`);
  return fileURLToPath(url);
}

/** Whether a store's answers come from another machine, through a client that costs time and memory itself. */
export function isInNetwork(url: string): boolean {
  return URL.parse(url)?.protocol === 's3:';
}

function secondsOf(url: string, given: string | null): number {
  const seconds = given === null ? TIMEOUT_SECONDS : Number(given);
  if (seconds > 0 && seconds <= 3600) return seconds;
  throw new Error(`object store ${url}: timeout=${given}: give seconds, more than 0 and up to 3600`);
}
