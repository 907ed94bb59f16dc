import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { EC2Client } from '@aws-sdk/client-ec2';
import { AdminClient } from '../admin/admin-client.ts';
import { readCredentials } from '../auth/credentials-file.ts';
import { NbdClient } from '../nbd/client.ts';
import { dataPaths } from '../server/data-directory.ts';

const CLEANCUT = fileURLToPath(new URL('../../bin/cleancut.js', import.meta.url));
const REGION = 'us-east-1';

export type DemoServer = {
  apiUrl: string;
  ec2: EC2Client;
  admin: AdminClient;
  connect: (exportName: string) => Promise<NbdClient>;
  stop: () => Promise<void>;
};

/** A server in a process of its own, as `npm start` runs it, on free ports. */
export async function startDemoServer(dataDir: string): Promise<DemoServer> {
  const flags = ['--data-dir', dataDir, '--port', '0', '--workers', '2', '--log-level', 'error'];
  const child = spawn(process.execPath, [CLEANCUT, 'serve', ...flags], { stdio: ['ignore', 'pipe', 'inherit'] });
  const apiUrl = /api=(\S+)/.exec(await readyLine(child))?.[1] ?? '';
  const credentials = readCredentials(dataPaths(dataDir).credentials);
  const ec2 = new EC2Client({ region: REGION, endpoint: apiUrl, credentials });
  return {
    apiUrl,
    ec2,
    admin: new AdminClient({ apiUrl, region: REGION, credentials }),
    connect: (exportName) => NbdClient.connect({ socketPath: dataPaths(dataDir).nbdSocket }, exportName),
    async stop() {
      ec2.destroy();
      const exited = once(child, 'exit');
      child.kill('SIGTERM');
      const [code] = await exited;
      if (code !== 0) throw new Error(`the server stopped with exit code ${code}`);
    },
  };
}

async function readyLine(child: ChildProcess): Promise<string> {
  if (child.stdout === null) throw new Error('the server has no stdout');
  for await (const line of createInterface(child.stdout)) if (line.startsWith('cleancut ready')) return line;
  throw new Error('the server ended before it was ready');
}
