import type { ChildProcess } from 'node:child_process';
import { EC2Client } from '@aws-sdk/client-ec2';
import { AdminClient } from '../../src/admin/admin-client.ts';
import { readCredentials as readCredentialsFile } from '../../src/auth/credentials-file.ts';
import { NbdClient } from '../../src/nbd/client.ts';
import { spawnServer } from '../../src/server/spawn-server.ts';
import type { Cleanup } from './cleanup.ts';
import { temporaryDirectory } from './temporary-directory.ts';

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
  let log = '';
  const all = [...flags, ...(options.flags ?? [])];
  const spawned = await spawnServer(all, options.environment, (text) => {
    log += text;
  }).catch((error: Error) => {
    throw new Error(`${error.message}: ${log}`);
  });
  const { child, apiUrl, exited, readyLine } = spawned;
  test.after(() => child.kill('SIGKILL'));
  const nbdPort = Number(/nbds?:\/\/[^:]+:(\d+)/.exec(readyLine)?.[1]);
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
      return exited;
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
