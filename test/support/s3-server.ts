import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { createServer } from 'node:net';
import path from 'node:path';
import type { Cleanup } from './cleanup.ts';
import { temporaryDirectory } from './temporary-directory.ts';

export type TestS3 = {
  /** Where it keeps its files. */
  directory: string;
  url: string;
  environment: NodeJS.ProcessEnv;
  stop: () => Promise<void>;
  start: () => Promise<void>;
};

/** A real S3 server over HTTP in a process of its own (s3rver), with one bucket. */
export async function startS3Server(test: Cleanup): Promise<TestS3> {
  const directory = temporaryDirectory(test);
  mkdirSync(path.join(directory, 'cleancut-bucket'));
  const port = await freePort();
  const bin = path.join(path.dirname(createRequire(import.meta.url).resolve('s3rver/package.json')), 'bin/s3rver.js');
  const launch = async () => {
    const child = spawn(process.execPath, [bin, '-d', directory, '-a', '127.0.0.1', '-p', String(port), '--silent'], {
      stdio: 'ignore',
    });
    for (;;) {
      const answer = await fetch(`http://127.0.0.1:${port}/`).catch(() => undefined);
      if (answer !== undefined) return child;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  };
  let child = await launch();
  test.after(() => child.kill('SIGKILL'));
  return {
    directory,
    url: `s3://cleancut-bucket/backups/here?endpoint=http://127.0.0.1:${port}&region=us-east-1&path-style=true`,
    environment: { AWS_ACCESS_KEY_ID: 'S3RVER', AWS_SECRET_ACCESS_KEY: 'S3RVER' },
    async stop() {
      const exited = once(child, 'exit');
      child.kill('SIGKILL');
      await exited;
    },
    async start() {
      child = await launch();
    },
  };
}

async function freePort(): Promise<number> {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}
