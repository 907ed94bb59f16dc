/**
 * NBD I/O over a unix socket, with fio's nbd engine: cleancut against nbdkit's file plugin and qemu-nbd (writeback).
 * The three take turns, profile by profile, so that a machine that drifts drifts for all.
 *
 *   node bench/nbd-io.ts [--rounds=3] [--seconds=4]
 */
import { spawn } from 'node:child_process';
import { existsSync, truncateSync, writeFileSync } from 'node:fs';
import { geometricMean, median, report, setting } from './support/figures.ts';
import { fio, PROFILES, type Result } from './support/fio.ts';
import { startBenchServer } from './support/server.ts';

const ROUNDS = setting('rounds', 3);
const SECONDS = setting('seconds', 4);
const SIZE_MIB = 1024;

const server = await startBenchServer();
const { volumes } = await server.launch([SIZE_MIB / 1024]);
const raw = (name: string): string => {
  const file = `${server.directory}/${name}.raw`;
  writeFileSync(file, '');
  truncateSync(file, SIZE_MIB * 1024 * 1024);
  return file;
};
const peers = [
  spawn('nbdkit', ['-f', '-U', `${server.directory}/nbdkit.sock`, 'file', raw('nbdkit')], { stdio: 'ignore' }),
  spawn(
    'qemu-nbd',
    [
      '-k',
      `${server.directory}/qemu.sock`,
      '-f',
      'raw',
      '--cache=writeback',
      '--persistent',
      '--shared=4',
      raw('qemu'),
    ],
    { stdio: 'ignore' },
  ),
];
while (!existsSync(`${server.directory}/nbdkit.sock`) || !existsSync(`${server.directory}/qemu.sock`)) {
  await new Promise((resolve) => setTimeout(resolve, 50));
}
const targets = {
  cleancut: `nbd+unix:///${volumes[0]}?socket=${server.nbdSocket}`,
  nbdkit: `nbd+unix:///?socket=${server.directory}/nbdkit.sock`,
  'qemu-nbd': `nbd+unix:///?socket=${server.directory}/qemu.sock`,
};
const names = Object.keys(targets) as (keyof typeof targets)[];
const results = new Map<string, Result[]>();
try {
  // Every image is written to once, so that no one reads holes.
  for (const name of names)
    await fio(targets[name], { name: 'fill', rw: 'write', bs: '1m', depth: 8 }, SIZE_MIB, SECONDS);
  for (const profile of PROFILES) {
    for (let round = 0; round < ROUNDS; round += 1) {
      for (const name of names) {
        const key = `${profile.name} ${name}`;
        results.set(key, [...(results.get(key) ?? []), await fio(targets[name], profile, SIZE_MIB, SECONDS)]);
      }
    }
  }
} finally {
  for (const peer of peers) peer.kill();
  await server.stop();
}

const ratios: Record<string, number[]> = { nbdkit: [], 'qemu-nbd': [] };
const rows = PROFILES.map((profile) => {
  const of = (name: string): Result[] => results.get(`${profile.name} ${name}`) ?? [];
  const rate = (name: string): number => median(of(name).map((result) => result.iops));
  const p99 = (name: string): number => median(of(name).map((result) => result.p99Microseconds));
  for (const peer of Object.keys(ratios)) ratios[peer].push(rate('cleancut') / rate(peer));
  return [
    profile.name,
    ...names.map((name) => `${Math.round(rate(name))} (p99 ${Math.round(p99(name))} µs)`),
    (rate('cleancut') / rate('nbdkit')).toFixed(2),
    (rate('cleancut') / rate('qemu-nbd')).toFixed(2),
  ];
});
rows.push([
  'geometric mean',
  '',
  '',
  '',
  geometricMean(ratios.nbdkit).toFixed(2),
  geometricMean(ratios['qemu-nbd']).toFixed(2),
]);
report('nbd-io', ['requests a second', ...names, '÷ nbdkit', '÷ qemu-nbd'], rows, Object.fromEntries(results));
