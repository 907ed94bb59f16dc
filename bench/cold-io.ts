/**
 * NBD I/O on volumes that are not in memory: cleancut against nbdkit's file plugin and qemu-nbd, in turns, all caches
 * dropped before each (for which it must be root). Last, a guest whose volume is in memory, beside two that read from the
 * disk.
 *
 *   node bench/cold-io.ts [--rounds=3] [--seconds=3]
 */
import { median, report, setting } from './support/figures.ts';
import { fio, type Profile, type Result } from './support/fio.ts';
import { nbdkit, qemuNbd, rawFiles, requireTools } from './support/peers.ts';
import { dropCaches } from './support/processes.ts';
import { startBenchServer } from './support/server.ts';

const ROUNDS = setting('rounds', 3);
const SECONDS = setting('seconds', 3);
const SIZE_MIB = 2048;
const HOT_MIB = 64;
const PROFILES: readonly Profile[] = [
  { name: '4 KiB random read, depth 1', rw: 'randread', bs: '4k', depth: 1 },
  { name: '4 KiB random read, depth 16', rw: 'randread', bs: '4k', depth: 16 },
  { name: '128 KiB random read, depth 8', rw: 'randread', bs: '128k', depth: 8 },
  { name: '4 KiB random 70/30, depth 16', rw: 'randrw', bs: '4k', depth: 16 },
];
requireTools('fio', 'nbdkit', 'qemu-nbd');

const server = await startBenchServer();
const { volumes } = await server.launch([2, 2, 2]);
const sizeBytes = SIZE_MIB * 1024 * 1024;
const peers = {
  nbdkit: await nbdkit(server.directory, rawFiles(server.directory, 'nbdkit', 3, sizeBytes)),
  'qemu-nbd': await qemuNbd(server.directory, rawFiles(server.directory, 'qemu', 3, sizeBytes)),
};
const targets = {
  cleancut: volumes.map((volume) => `nbd+unix:///${volume}?socket=${server.nbdSocket}`),
  nbdkit: peers.nbdkit.uris,
  'qemu-nbd': peers['qemu-nbd'].uris,
};
const names = Object.keys(targets) as (keyof typeof targets)[];
const results = new Map<string, Result[]>();
const keep = (row: string, name: string, result: Result): void => {
  results.set(`${row} ${name}`, [...(results.get(`${row} ${name}`) ?? []), result]);
};
const rowNames: string[] = [];
try {
  for (const name of names)
    await fio(targets[name], { name: 'fill', rw: 'write', bs: '1m', depth: 8 }, SIZE_MIB, 8 * SECONDS);
  for (const count of [1, 3]) {
    for (const profile of PROFILES) {
      const row = `${count}: ${profile.name}`;
      rowNames.push(row);
      for (let round = 0; round < ROUNDS; round += 1) {
        for (const name of names) {
          await dropCaches();
          keep(row, name, await fio(targets[name].slice(0, count), profile, SIZE_MIB, SECONDS));
        }
      }
    }
  }
  const row = '1 in memory, depth 1, beside 2 that are not';
  rowNames.push(row);
  for (let round = 0; round < ROUNDS; round += 1) {
    for (const name of names) {
      await dropCaches();
      const [own, ...others] = targets[name];
      await fio([own], { name: 'warm', rw: 'read', bs: '1m', depth: 8 }, HOT_MIB, 2);
      const [hot] = await Promise.all([
        fio([own], { name: 'hot', rw: 'randread', bs: '4k', depth: 1 }, HOT_MIB, SECONDS),
        fio(others, { name: 'cold', rw: 'randread', bs: '4k', depth: 16 }, SIZE_MIB, SECONDS),
      ]);
      keep(row, name, hot);
    }
  }
} finally {
  for (const peer of Object.values(peers)) await peer.stop();
  await server.stop();
}

const rows = rowNames.map((row) => {
  const rate = (name: string): number => median((results.get(`${row} ${name}`) ?? []).map(({ iops }) => iops));
  const p99 = (name: string): number =>
    median((results.get(`${row} ${name}`) ?? []).map(({ p99Microseconds }) => p99Microseconds));
  return [
    row,
    ...names.map((name) => `${Math.round(rate(name))} (p99 ${Math.round(p99(name))} µs)`),
    (rate('cleancut') / rate('nbdkit')).toFixed(2),
    (rate('cleancut') / rate('qemu-nbd')).toFixed(2),
    (p99('cleancut') / p99('nbdkit')).toFixed(2),
  ];
});
const headings = ['volumes: profile', ...names, '÷ nbdkit', '÷ qemu-nbd', 'p99 ÷ nbdkit'];
report('cold-io', headings, rows, Object.fromEntries(results));
