/**
 * NBD I/O over unix sockets, with fio's nbd engine: cleancut against nbdkit's file plugin and qemu-nbd (writeback), on one
 * volume and on four at once. The three take turns, profile by profile, so that a machine that drifts drifts for all.
 *
 *   node bench/nbd-io.ts [--rounds=3] [--seconds=3]
 */
import { geometricMean, median, report, setting } from './support/figures.ts';
import { fio, PROFILES, type Result } from './support/fio.ts';
import { nbdkit, qemuNbd, rawFiles, requireTools } from './support/peers.ts';
import { startBenchServer } from './support/server.ts';

const ROUNDS = setting('rounds', 3);
const SECONDS = setting('seconds', 3);
const SIZE_MIB = 1024;
const MIB = 1024 * 1024;
requireTools('fio', 'nbdkit', 'qemu-nbd');

const server = await startBenchServer();
const { volumes } = await server.launch([1, 1, 1, 1]);
const peers = {
  nbdkit: await nbdkit(server.directory, rawFiles(server.directory, 'nbdkit', 4, SIZE_MIB * MIB)),
  'qemu-nbd': await qemuNbd(server.directory, rawFiles(server.directory, 'qemu', 4, SIZE_MIB * MIB)),
};
const targets = {
  cleancut: volumes.map((volume) => `nbd+unix:///${volume}?socket=${server.nbdSocket}`),
  nbdkit: peers.nbdkit.uris,
  'qemu-nbd': peers['qemu-nbd'].uris,
};
const names = Object.keys(targets) as (keyof typeof targets)[];
const results = new Map<string, Result[]>();
try {
  // Every image is written to once, so that no one reads holes.
  for (const name of names)
    await fio(targets[name], { name: 'fill', rw: 'write', bs: '1m', depth: 8 }, SIZE_MIB, 4 * SECONDS);
  for (const count of [1, 4]) {
    for (const profile of PROFILES) {
      for (let round = 0; round < ROUNDS; round += 1) {
        for (const name of names) {
          const key = `${count} ${profile.name} ${name}`;
          const result = await fio(targets[name].slice(0, count), profile, SIZE_MIB, SECONDS);
          results.set(key, [...(results.get(key) ?? []), result]);
        }
      }
    }
  }
} finally {
  for (const peer of Object.values(peers)) await peer.stop();
  await server.stop();
}

const rows: string[][] = [];
for (const count of [1, 4]) {
  const ratios: Record<string, number[]> = { nbdkit: [], 'qemu-nbd': [] };
  for (const profile of PROFILES) {
    const of = (name: string): Result[] => results.get(`${count} ${profile.name} ${name}`) ?? [];
    const rate = (name: string): number => median(of(name).map((result) => result.iops));
    const p99 = (name: string): number => median(of(name).map((result) => result.p99Microseconds));
    for (const peer of Object.keys(ratios)) ratios[peer].push(rate('cleancut') / rate(peer));
    rows.push([
      String(count),
      profile.name,
      ...names.map((name) => `${Math.round(rate(name))} (p99 ${Math.round(p99(name))} µs)`),
      (rate('cleancut') / rate('nbdkit')).toFixed(2),
      (rate('cleancut') / rate('qemu-nbd')).toFixed(2),
      (p99('cleancut') / p99('nbdkit')).toFixed(2),
    ]);
  }
  const means = [geometricMean(ratios.nbdkit).toFixed(2), geometricMean(ratios['qemu-nbd']).toFixed(2)];
  rows.push([String(count), 'geometric mean', '', '', '', ...means, '']);
}
const headings = ['volumes', 'profile', ...names, '÷ nbdkit', '÷ qemu-nbd', 'p99 ÷ nbdkit'];
report('nbd-io', headings, rows, Object.fromEntries(results));
