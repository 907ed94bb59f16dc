/**
 * NBD I/O on volumes that are not in memory: cleancut against nbdkit's file plugin and qemu-nbd, in turns, all caches
 * dropped before each (for which it must be root). Last, a guest whose volume is in memory, beside two that read from the
 * disk.
 *
 *   node bench/cold-io.ts [--rounds=3] [--seconds=3]
 */
import { report, setting } from './support/figures.ts';
import { fio, type Profile, type Result } from './support/fio.ts';
import { COMPARISON_HEADINGS, CONTESTANTS, type Contestant, compare, startContest } from './support/nbd-contest.ts';
import { requireTools } from './support/peers.ts';
import { dropCaches } from './support/processes.ts';

const ROUNDS = setting('rounds', 3);
const SECONDS = setting('seconds', 3);
const SIZE_GIB = 2;
const SIZE_MIB = SIZE_GIB * 1024;
const HOT_MIB = 64;
const PROFILES: readonly Profile[] = [
  { name: '4 KiB random read, depth 1', rw: 'randread', bs: '4k', depth: 1 },
  { name: '4 KiB random read, depth 16', rw: 'randread', bs: '4k', depth: 16 },
  { name: '128 KiB random read, depth 8', rw: 'randread', bs: '128k', depth: 8 },
  { name: '4 KiB random 70/30, depth 16', rw: 'randrw', bs: '4k', depth: 16 },
];
requireTools('fio', 'nbdkit', 'qemu-nbd');

const contest = await startContest(3, SIZE_GIB, 8 * SECONDS);
const rows: string[][] = [];
const figures: Record<string, Record<Contestant, Result[]>> = {};
async function measure(row: string, run: (uris: string[]) => Promise<Result>): Promise<void> {
  const results: Record<Contestant, Result[]> = { cleancut: [], nbdkit: [], 'qemu-nbd': [] };
  for (let round = 0; round < ROUNDS; round += 1) {
    for (const name of CONTESTANTS) {
      await dropCaches();
      results[name].push(await run(contest.uris[name]));
    }
  }
  figures[row] = results;
  rows.push([row, ...compare(results).cells]);
}

try {
  for (const count of [1, 3]) {
    for (const profile of PROFILES)
      await measure(`${count}: ${profile.name}`, (uris) => fio(uris.slice(0, count), profile, SIZE_MIB, SECONDS));
  }
  await measure('1 in memory, depth 1, beside 2 that are not', async ([own, ...others]) => {
    await fio([own], { name: 'warm', rw: 'read', bs: '1m', depth: 8 }, HOT_MIB, 2);
    const [hot] = await Promise.all([
      fio([own], { name: 'hot', rw: 'randread', bs: '4k', depth: 1 }, HOT_MIB, SECONDS),
      fio(others, { name: 'cold', rw: 'randread', bs: '4k', depth: 16 }, SIZE_MIB, SECONDS),
    ]);
    return hot;
  });
} finally {
  await contest.stop();
}
report('cold-io', ['volumes: profile', ...COMPARISON_HEADINGS], rows, figures);
