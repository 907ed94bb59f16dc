/**
 * NBD I/O over unix sockets, with fio's nbd engine: cleancut against nbdkit's file plugin and qemu-nbd (writeback), on one
 * volume and on four at once. The three take turns, profile by profile, so that a machine that drifts drifts for all.
 *
 *   node bench/nbd-io.ts [--rounds=3] [--seconds=3]
 */
import { geometricMean, report, setting } from './support/figures.ts';
import { fio, PROFILES, type Result } from './support/fio.ts';
import { COMPARISON_HEADINGS, CONTESTANTS, type Contestant, compare, startContest } from './support/nbd-contest.ts';
import { requireTools } from './support/peers.ts';

const ROUNDS = setting('rounds', 3);
const SECONDS = setting('seconds', 3);
requireTools('fio', 'nbdkit', 'qemu-nbd');

const contest = await startContest(4, 1, 4 * SECONDS);
const rows: string[][] = [];
const figures: Record<string, Record<Contestant, Result[]>> = {};
try {
  for (const count of [1, 4]) {
    const ratios: Record<'nbdkit' | 'qemu-nbd', number[]> = { nbdkit: [], 'qemu-nbd': [] };
    for (const profile of PROFILES) {
      const results: Record<Contestant, Result[]> = { cleancut: [], nbdkit: [], 'qemu-nbd': [] };
      for (let round = 0; round < ROUNDS; round += 1) {
        for (const name of CONTESTANTS)
          results[name].push(await fio(contest.uris[name].slice(0, count), profile, 1024, SECONDS));
      }
      figures[`${count} ${profile.name}`] = results;
      const { cells, rates } = compare(results);
      ratios.nbdkit.push(rates.nbdkit);
      ratios['qemu-nbd'].push(rates['qemu-nbd']);
      rows.push([String(count), profile.name, ...cells]);
    }
    const means = [geometricMean(ratios.nbdkit).toFixed(2), geometricMean(ratios['qemu-nbd']).toFixed(2)];
    rows.push([String(count), 'geometric mean', '', '', '', ...means, '']);
  }
} finally {
  await contest.stop();
}
report('nbd-io', ['volumes', 'profile', ...COMPARISON_HEADINGS], rows, figures);
