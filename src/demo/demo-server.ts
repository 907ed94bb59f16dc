import { EC2Client } from '@aws-sdk/client-ec2';
import { AdminClient } from '../admin/admin-client.ts';
import { readCredentials } from '../auth/credentials-file.ts';
import { NbdClient } from '../nbd/client.ts';
import { dataPaths } from '../server/data-directory.ts';
import { spawnServer } from '../server/spawn-server.ts';

const REGION = 'us-east-1';

export type DemoServer = {
  apiUrl: string;
  ec2: EC2Client;
  admin: AdminClient;
  connect: (exportName: string) => Promise<NbdClient>;
  stop: () => Promise<void>;
};

/** A server in a process of its own, as `npm start` runs it, on free ports. @param signal stops it */
export async function startDemoServer(dataDir: string, signal: AbortSignal): Promise<DemoServer> {
  const flags = ['--data-dir', dataDir, '--port', '0', '--workers', '2', '--log-level', 'error'];
  const { apiUrl, child, exited } = await spawnServer(flags);
  const end = (): void => void child.kill('SIGTERM');
  if (signal.aborted) end();
  signal.addEventListener('abort', end);
  const credentials = readCredentials(dataPaths(dataDir).credentials);
  const ec2 = new EC2Client({ region: REGION, endpoint: apiUrl, credentials });
  return {
    apiUrl,
    ec2,
    admin: new AdminClient({ apiUrl, region: REGION, credentials }),
    connect: (exportName) => NbdClient.connect({ socketPath: dataPaths(dataDir).nbdSocket }, exportName),
    async stop() {
      ec2.destroy();
      end();
      const code = await exited;
      if (code !== 0) throw new Error(`the server stopped with exit code ${code}`);
    },
  };
}
