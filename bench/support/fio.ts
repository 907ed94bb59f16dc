import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

const run = promisify(execFile);

export type Profile = { name: string; rw: string; bs: string; depth: number };

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

export type Result = { iops: number; p99Microseconds: number };

/** Runs fio's nbd engine against an export, for so many seconds over its first MiB. */
export async function fio(uri: string, profile: Profile, sizeMiB: number, seconds: number): Promise<Result> {
  const { stdout } = await run('fio', [
    '--name=bench',
    '--ioengine=nbd',
    `--uri=${uri}`,
    `--rw=${profile.rw}`,
    `--bs=${profile.bs}`,
    `--iodepth=${profile.depth}`,
    `--size=${sizeMiB}m`,
    '--rwmixread=70',
    '--time_based=1',
    `--runtime=${seconds}`,
    '--randrepeat=0',
    '--output-format=json',
  ]);
  type Side = { iops: number; clat_ns: { percentile?: Record<string, number> } };
  const job = (JSON.parse(stdout.slice(stdout.indexOf('{'))) as { jobs: { read: Side; write: Side }[] }).jobs[0];
  const sides = [job.read, job.write];
  return {
    iops: job.read.iops + job.write.iops,
    p99Microseconds: Math.max(...sides.map((side) => (side.clat_ns.percentile?.['99.000000'] ?? 0) / 1000)),
  };
}
