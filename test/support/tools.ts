import { execFile, spawnSync } from 'node:child_process';
import { promisify } from 'node:util';

const run = promisify(execFile);

/**
 * Whether programs that a test needs are there. Where they are not, the test is skipped and says which; in CI, where
 * all are installed, that is a failure.
 * @returns for node:test's `skip`
 */
export function without(...programs: string[]): string | false {
  const missing = programs.filter((program) => spawnSync('which', [program]).status !== 0);
  if (missing.length === 0) return false;
  if (process.env.CLEANCUT_TEST_NO_SKIP === '1') throw new Error(`${missing.join(', ')} must be installed in CI`);
  return `needs ${missing.join(', ')}`;
}

/** Mounting needs a root user, /dev/fuse and loop devices. */
export function withoutMounts(...programs: string[]): string | false {
  const lacking = without(...programs);
  if (lacking !== false) return lacking;
  return process.getuid?.() === 0 ? false : 'needs root, to mount';
}

/** Runs a program to its end. @returns its stdout @throws with its stderr when it fails */
export async function tool(program: string, argv: string[], environment: NodeJS.ProcessEnv = {}): Promise<string> {
  const { stdout } = await run(program, argv, {
    env: { ...process.env, ...environment },
    maxBuffer: 64 * 1024 * 1024,
  });
  return stdout;
}
