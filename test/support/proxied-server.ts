import type { TestContext } from 'node:test';
import { FaultyProxy } from './faulty-proxy.ts';
import { startS3Server } from './s3-server.ts';
import { type ServerOptions, startTestServer } from './server.ts';

/**
 * A server whose object store is an S3 server behind a network that can fail.
 * @param storeSettings for the store's URL, `&timeout=1`, say
 * @returns besides: the S3 server itself, and what a next server on the same store is started with
 */
export async function startProxiedServer(test: TestContext, storeSettings = '', moreFlags: readonly string[] = []) {
  const s3 = await startS3Server(test);
  const { proxy, url } = await FaultyProxy.start(test, s3.url);
  const flags = ['--object-store', `${url}${storeSettings}`, ...moreFlags];
  const options = { flags, environment: s3.environment } satisfies ServerOptions;
  return { s3, proxy, options, server: await startTestServer(test, options) };
}
