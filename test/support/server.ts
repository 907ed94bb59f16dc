import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { EC2Client } from '@aws-sdk/client-ec2';
import { AdminClient } from '../../src/admin/admin-client.ts';
import { readCredentials as readCredentialsFile } from '../../src/auth/credentials-file.ts';
import { NbdClient } from '../../src/nbd/client.ts';
import type { Cleanup } from './cleanup.ts';
import { temporaryDirectory } from './temporary-directory.ts';

const CLEANCUT = new URL('../../bin/cleancut.js', import.meta.url).pathname;

export type TestServer = {
  dataDir: string;
  apiUrl: string;
  nbdSocket: string;
  nbdPort: number;
  process: ChildProcess;
  ec2: EC2Client;
  admin: AdminClient;
  /** Everything the server wrote to stderr. */
  log: () => string;
  connect: (exportName: string) => Promise<NbdClient>;
  /** As an operator does: SIGTERM, and wait. @returns the exit code */
  stop: () => Promise<number | null>;
  /** kill -9, all of it at once or the server alone (its workers end by themselves). */
  kill: () => Promise<void>;
};

export type ServerOptions = { dataDir?: string; flags?: string[]; environment?: NodeJS.ProcessEnv };

/** Starts a real server in a process of its own, on free ports, with two data-plane workers. */
export async function startTestServer(test: Cleanup, options: ServerOptions = {}): Promise<TestServer> {
  const dataDir = options.dataDir ?? temporaryDirectory(test);
  const flags = ['--data-dir', dataDir, '--port', '0', '--nbd-port', '0', '--workers', '2', '--log-level', 'info'];
  const child = spawn(process.execPath, [CLEANCUT, 'serve', ...flags, ...(options.flags ?? [])], {
    stdio: ['ignore', 'pipe', 'pipe'],
    // A process group of its own, as a terminal gives it.
    detached: true,
    env: { ...process.env, ...options.environment },
  });
  test.after(() => child.kill('SIGKILL'));
  let log = '';
  child.stderr.on('data', (text: Buffer) => {
    log += text.toString();
  });
  const exited = once(child, 'exit');
  const ready = await Promise.race([
    readyLine(child),
    exited.then(([code]) => {
      throw new Error(`the server ended with ${code}: ${log}`);
    }),
  ]);
  const apiUrl = /api=(\S+)/.exec(ready)?.[1] ?? '';
  const nbdPort = Number(/nbd:\/\/[^:]+:(\d+)/.exec(ready)?.[1]);
  const nbdSocket = `${dataDir}/nbd.sock`;
  const credentials = readCredentials(dataDir);
  const ec2 = new EC2Client({ region: 'us-east-1', endpoint: apiUrl, credentials, maxAttempts: 1 });
  test.after(() => ec2.destroy());
  return {
    dataDir,
    apiUrl,
    nbdSocket,
    nbdPort,
    process: child,
    ec2,
    admin: new AdminClient({ apiUrl, region: 'us-east-1', credentials }),
    log: () => log,
    connect: (exportName) => NbdClient.connect({ socketPath: nbdSocket }, exportName),
    async stop() {
      child.kill('SIGTERM');
      const [code] = await exited;
      return code;
    },
    async kill() {
      child.kill('SIGKILL');
      await exited;
    },
  };
}

/** The administrator's key of a data directory. */
export function readCredentials(dataDir: string): { accessKeyId: string; secretAccessKey: string } {
  return readCredentialsFile(`${dataDir}/credentials`);
}

async function readyLine(child: ChildProcess): Promise<string> {
  if (child.stdout === null) throw new Error('the server has no stdout');
  for await (const line of createInterface(child.stdout)) if (line.startsWith('cleancut ready')) return line;
  // It is ending: its exit code and its log say more.
  return new Promise(() => undefined);
}
