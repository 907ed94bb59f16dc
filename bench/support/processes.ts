import { execFile } from 'node:child_process';
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { promisify } from 'node:util';

const run = promisify(execFile);
/** Of the kernel's clock, in which /proc counts (getconf CLK_TCK; the same on every Linux of today). */
const TICKS_PER_SECOND = 100;

/** A process and all below it. */
export function processTree(pid: number): number[] {
  const children = new Map<number, number[]>();
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    try {
      const parent = Number(statFields(Number(name))[1]);
      children.set(parent, [...(children.get(parent) ?? []), Number(name)]);
    } catch {
      // It has just ended.
    }
  }
  const below = (root: number): number[] => [root, ...(children.get(root) ?? []).flatMap(below)];
  return below(pid);
}

/** Processor time of processes, seconds. */
export function processorSeconds(pids: readonly number[]): number {
  return pids.reduce((sum, pid) => {
    const fields = statFields(pid);
    return sum + (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
  }, 0);
}

/** Resident memory of each process, MiB. */
export function residentMiB(pids: readonly number[]): number[] {
  return pids.map((pid) => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0) / 1024);
}

/** The most that was resident of a process so far, MiB. */
export function peakMiB(pid: number): number {
  return Math.round(Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0) / 1024);
}

/** The fields of /proc/PID/stat from the state on. */
function statFields(pid: number): string[] {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  return stat.slice(stat.lastIndexOf(')') + 2).split(' ');
}

/** Waits until what earlier steps wrote is on the disk: or the next one, whoever's it is, would share the disk with that. */
export async function quietDisk(): Promise<void> {
  await run('sync');
}

/** Afterwards nothing of any file is in the page cache. @throws EACCES for who is not root */
export async function dropCaches(): Promise<void> {
  // What is not on the disk yet cannot be dropped.
  await quietDisk();
  writeFileSync('/proc/sys/vm/drop_caches', '3');
}

/** Runs a program on a quiet disk, and says how long it took and how much processor time. */
export async function timed(
  command: readonly string[],
  environment: NodeJS.ProcessEnv = {},
  directory?: string,
): Promise<{ seconds: number; processorSeconds: number }> {
  await quietDisk();
  const script = 'TIMEFORMAT="%R %U %S"; time "$@" >/dev/null 2>/dev/null';
  const { stderr } = await run('bash', ['-c', script, 'bash', ...command], {
    env: { ...process.env, ...environment },
    ...(directory === undefined ? {} : { cwd: directory }),
  });
  const [seconds, user, system] = stderr.trim().split(' ').map(Number);
  return { seconds, processorSeconds: user + system };
}

/** How many files lie below a directory, and their bytes. */
export function contents(directory: string): { files: number; bytes: number } {
  const sum = { files: 0, bytes: 0 };
  for (const entry of readdirSync(directory, { withFileTypes: true, recursive: true })) {
    if (!entry.isFile()) continue;
    sum.files += 1;
    sum.bytes += statSync(`${entry.parentPath}/${entry.name}`).size;
  }
  return sum;
}
