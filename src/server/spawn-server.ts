import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const CLEANCUT = fileURLToPath(new URL('../../bin/cleancut.js', import.meta.url));

export type SpawnedServer = { child: ChildProcess; readyLine: string; apiUrl: string; exited: Promise<number | null> };

/**
 * Runs `cleancut serve` in a process of its own, as `npm start` does, and waits until it is ready: for the demo, the
 * tests and the benchmarks.
 * @param onStderr takes what the server logs; without it, it goes to this process's stderr
 * @throws when the server ends before it is ready
 */
export async function spawnServer(
  flags: readonly string[],
  environment: NodeJS.ProcessEnv = {},
  onStderr?: (text: string) => void,
): Promise<SpawnedServer> {
  const child = spawn(process.execPath, [CLEANCUT, 'serve', ...flags], {
    stdio: ['ignore', 'pipe', onStderr === undefined ? 'inherit' : 'pipe'],
    // A process group of its own, as a terminal gives it.
    detached: onStderr !== undefined,
    env: { ...process.env, ...environment },
  });
  child.stderr?.on('data', (text: Buffer) => onStderr?.(text.toString()));
  const exited = once(child, 'exit').then(([code]): number | null => code);
  const readyLine = await Promise.race([
    findReadyLine(child),
    exited.then((code) => {
      throw new Error(`the server ended with ${code} before it was ready`);
    }),
  ]);
  return { child, readyLine, apiUrl: /api=(\S+)/.exec(readyLine)?.[1] ?? '', exited };
}

async function findReadyLine(child: ChildProcess): Promise<string> {
  if (child.stdout === null) throw new Error('the server has no stdout');
  for await (const line of createInterface(child.stdout)) if (line.startsWith('cleancut ready')) return line;
  // It is ending: its exit code says more.
  return new Promise(() => undefined);
}
