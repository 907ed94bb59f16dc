import { readFileSync } from 'node:fs';
import { readConfig } from '../server/config.ts';
import { startServer } from '../server/server.ts';

const LAST_WORDS_MILLISECONDS = 500;

/** Runs the server until it is told to stop. */
export async function serve(flags: Record<string, unknown>): Promise<void> {
  const config = readConfig(flags, process.env, readConfigFile(flags.config));
  // Not for the processes that this one starts, nor for whoever looks at their environment.
  delete process.env.CLEANCUT_KEY_PASSPHRASE;
  const server = await startServer(config).catch((error: Error) => {
    // What had begun by then may still wait for an object store, say. Nothing must keep a process that serves nobody.
    setTimeout(() => process.exit(), LAST_WORDS_MILLISECONDS).unref();
    throw error;
  });
  const told = new Promise<void>((resolve) => {
    // Heard once and again: a second one (a terminal and npm both pass Ctrl-C on) must not cut the stop short.
    process.on('SIGTERM', () => resolve());
    process.on('SIGINT', () => resolve());
  });
  // Who reads this may stop the server at once: it must listen already.
  process.stdout.write(
    `cleancut ready api=${server.apiUrl} nbd=${server.nbdUris.join(',')} credentials=${server.credentialsFile}\n`,
  );
  await told;
  await server.stop();
  // What was still asked of an object store that does not answer would keep the process for minutes.
  process.exit();
}

function readConfigFile(path: unknown): Record<string, unknown> {
  if (typeof path !== 'string') return {};
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as Record<string, unknown>;
  } catch (error) {
    throw new Error(`--config ${path}: ${(error as Error).message}`);
  }
}
