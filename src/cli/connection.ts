import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { AdminClient, ServerAwayError } from '../admin/admin-client.ts';
import { readCredentials } from '../auth/credentials-file.ts';
import { dataPaths } from '../server/data-directory.ts';
import type { RunningFile } from '../server/server.ts';

export type DataDirFlag = { dataDir?: string | undefined };

/** The data directory that a verb works with: the flag's, the environment's, or the default. */
export function chosenDataDir(flags: DataDirFlag): string {
  return path.resolve(flags.dataDir ?? process.env.CLEANCUT_DATA_DIR ?? './cleancut-data');
}

/** What the server that runs on a data directory says of itself. @throws ServerAwayError with what to do when there is none */
export function runningServer(dataDir: string): RunningFile {
  const file = dataPaths(dataDir).running;
  if (!existsSync(file)) {
    throw new ServerAwayError(
      `no server is running on ${dataDir}. Start one with 'npx cleancut serve --data-dir ${dataDir}', or name another with --data-dir.`,
    );
  }
  return JSON.parse(readFileSync(file, 'utf8')) as RunningFile;
}

/** A client of the server on that data directory, with its administrator's key. */
export function connectToServer(flags: DataDirFlag): AdminClient {
  const dataDir = chosenDataDir(flags);
  const { apiUrl, region, certificate } = runningServer(dataDir);
  const credentials = readCredentials(dataPaths(dataDir).credentials);
  return new AdminClient({ apiUrl, region, credentials, certificate });
}
