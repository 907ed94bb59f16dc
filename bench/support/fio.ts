import { execFile } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);
/** Of what is measured until something has ended: longer, and the figures would be of something else. */
const LONGEST_SECONDS = 600;

export type Profile = {
  name: string;
  rw: string;
  bs: string;
  depth: number;
  /** Requests a second for each target, where they are to be fewer than it can do. */
  rate?: number;
};

/** What a database, a copy, and a virtual machine ask of a volume. */
export const PROFILES: readonly Profile[] = [
  { name: '4 KiB random read, depth 1', rw: 'randread', bs: '4k', depth: 1 },
  { name: '4 KiB random read, depth 16', rw: 'randread', bs: '4k', depth: 16 },
  { name: '4 KiB random write, depth 1', rw: 'randwrite', bs: '4k', depth: 1 },
  { name: '4 KiB random write, depth 16', rw: 'randwrite', bs: '4k', depth: 16 },
  { name: '128 KiB read, depth 8', rw: 'read', bs: '128k', depth: 8 },
  { name: '128 KiB write, depth 8', rw: 'write', bs: '128k', depth: 8 },
  { name: '4 KiB random 70/30, depth 16', rw: 'randrw', bs: '4k', depth: 16 },
];

/** Of all targets together; latencies are those of the worst target. */
export type Result = { iops: number; p99Microseconds: number; p999Microseconds: number; mostMicroseconds: number };

/** The stretch of a run that latencies are taken from: without the first and the last moments of the connections. */
export type Window = { fromMilliseconds: number; toMilliseconds: number };

/** Runs fio's nbd engine against exports, all at once, for so many seconds over the first MiB of each. */
export async function fio(
  uris: readonly string[],
  profile: Profile,
  sizeMiB: number,
  seconds: number,
  window?: Window,
): Promise<Result> {
  const logs = window && mkdtempSync(path.join(tmpdir(), 'cleancut-fio-'));
  try {
    const { stdout } = await startFio(uris, profile, sizeMiB, seconds, logs);
    const result = resultOf(stdout);
    return logs === undefined ? result : { ...result, ...inWindow(logs, window as Window) };
  } finally {
    if (logs !== undefined) rmSync(logs, { recursive: true });
  }
}

/** The same, until something else has ended. @returns undefined when that was before fio had begun */
export async function fioUntil(
  uris: readonly string[],
  profile: Profile,
  sizeMiB: number,
  ended: Promise<unknown>,
): Promise<Result | undefined> {
  const running = startFio(uris, profile, sizeMiB, LONGEST_SECONDS, undefined);
  const interrupted = ended.then(() => running.child.kill('SIGINT'));
  // Interrupted, it says what it has measured by then, and ends with an error.
  const { stdout } = await running.catch((error: Error & { stdout: string }) => error);
  await interrupted;
  return stdout === '' ? undefined : resultOf(stdout);
}

function startFio(
  uris: readonly string[],
  profile: Profile,
  sizeMiB: number,
  seconds: number,
  logs: string | undefined,
) {
  const jobs = uris.flatMap((uri, index) => [
    `--name=bench${index}`,
    `--uri=${uri}`,
    '--ioengine=nbd',
    ...(logs === undefined ? [] : [`--write_lat_log=${logs}/${index}`]),
  ]);
  return run(
    'fio',
    [
      '--ioengine=nbd',
      `--rw=${profile.rw}`,
      `--bs=${profile.bs}`,
      `--iodepth=${profile.depth}`,
      `--size=${sizeMiB}m`,
      '--rwmixread=70',
      '--time_based=1',
      `--runtime=${seconds}`,
      '--randrepeat=0',
      '--thread=1',
      ...(profile.rate === undefined ? [] : [`--rate_iops=${profile.rate}`]),
      '--output-format=json',
      ...jobs,
    ],
    { maxBuffer: 64 * 1024 * 1024 },
  );
}

function resultOf(stdout: string): Result {
  type Side = { iops: number; clat_ns: { max: number; percentile?: Record<string, number> } };
  const parsed = JSON.parse(stdout.slice(stdout.indexOf('{'))) as { jobs: { read: Side; write: Side }[] };
  const sides = parsed.jobs.flatMap((job) => [job.read, job.write]);
  const worst = (of: (side: Side) => number | undefined): number =>
    Math.max(...sides.map((side) => (of(side) ?? 0) / 1000));
  return {
    iops: sides.reduce((sum, side) => sum + side.iops, 0),
    p99Microseconds: worst((side) => side.clat_ns.percentile?.['99.000000']),
    p999Microseconds: worst((side) => side.clat_ns.percentile?.['99.900000']),
    mostMicroseconds: worst((side) => side.clat_ns.max),
  };
}

function inWindow(logs: string, { fromMilliseconds, toMilliseconds }: Window): Omit<Result, 'iops'> {
  const latencies: number[] = [];
  for (const name of readdirSync(logs)) {
    if (!name.includes('_clat.')) continue;
    for (const line of readFileSync(`${logs}/${name}`, 'utf8').trim().split('\n')) {
      const [at, nanoseconds] = line.split(',').map(Number);
      // The log has when a request ended; what began in the window counts, however long it took.
      const begun = at - nanoseconds / 1e6;
      if (begun >= fromMilliseconds && begun < toMilliseconds) latencies.push(nanoseconds / 1000);
    }
  }
  latencies.sort((a, b) => a - b);
  const quantile = (share: number): number =>
    latencies[Math.min(latencies.length - 1, Math.floor(latencies.length * share))];
  return { p99Microseconds: quantile(0.99), p999Microseconds: quantile(0.999), mostMicroseconds: quantile(1) };
}
