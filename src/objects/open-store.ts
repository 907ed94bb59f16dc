import { fileURLToPath } from 'node:url';
import { DirectoryStore } from './directory-store.ts';
import type { ObjectStore } from './object-store.ts';

/**
 * Opens the store that a URL names: `file://PATH`, or `s3://BUCKET/PREFIX?endpoint=…&region=…&path-style=true`.
 * @throws when the URL is neither, with a message for the operator
 */
export async function openObjectStore(url: string): Promise<ObjectStore> {
  const parsed = URL.parse(url);
  switch (parsed?.protocol) {
    case 'file:':
      return new DirectoryStore(fileURLToPath(parsed));
    case 's3:': {
      // Loaded where it is used: the S3 client takes a tenth of a second to import.
      const { S3Store } = await import('./s3-store.ts');
      const { searchParams } = parsed;
      for (const name of searchParams.keys()) {
        if (!['endpoint', 'region', 'path-style'].includes(name)) {
          throw new Error(`object store ${url}: unknown setting '${name}'; known are endpoint, region, path-style`);
        }
      }
      const prefix = parsed.pathname.replace(/^\/+|\/+$/g, '');
      return new S3Store(url, {
        bucket: parsed.hostname,
        prefix: prefix === '' ? '' : `${prefix}/`,
        endpoint: searchParams.get('endpoint') ?? undefined,
        region: searchParams.get('region') ?? process.env.AWS_REGION ?? 'us-east-1',
        pathStyle: searchParams.get('path-style') === 'true',
      });
    }
    default:
      throw new Error(
        `object store '${url}': give file:///PATH or s3://BUCKET/PREFIX?endpoint=…&region=…&path-style=true`,
      );
  }
}
