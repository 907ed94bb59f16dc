/**
 * The longest that a write waits around CreateSnapshots, with 1 and with 16 volumes that are all being written to; and,
 * for comparison, in stretches of the same length in which nothing is snapshotted.
 *
 *   node bench/cut-gap.ts [--cuts=10]
 */
import { randomBytes } from 'node:crypto';
import { NbdClient } from '../src/nbd/client.ts';
import { median, quantile, report, setting } from './support/figures.ts';
import { startBenchServer } from './support/server.ts';

const CUTS = setting('cuts', 10);
const WINDOW_MILLISECONDS = 600;
const AREA_BYTES = 32 * 1024 * 1024;

type Gaps = { longest: number[]; waits: number[] };

const server = await startBenchServer();
const rows: (string | number)[][] = [];
const figures: Record<string, Gaps> = {};
try {
  for (const count of [1, 16]) {
    const { instanceId, volumes } = await server.launch(new Array(count).fill(1));
    const clients = await Promise.all(
      volumes.map((volume) => NbdClient.connect({ socketPath: server.nbdSocket }, volume)),
    );
    let stopping = false;
    let waits: number[] = [];
    const payload = randomBytes(4096);
    const writers = clients.map(async (client) => {
      while (!stopping) {
        const issued = performance.now();
        await client.write(Math.floor((Math.random() * AREA_BYTES) / 4096) * 4096, payload);
        waits.push(performance.now() - issued);
      }
    });
    const measure = async (during: () => Promise<void>): Promise<Gaps> => {
      const gaps: Gaps = { longest: [], waits: [] };
      for (let round = 0; round < CUTS; round += 1) {
        waits = [];
        const end = performance.now() + WINDOW_MILLISECONDS;
        await during();
        await new Promise((resolve) => setTimeout(resolve, Math.max(0, end - performance.now())));
        gaps.longest.push(Math.max(...waits));
        gaps.waits.push(...waits);
      }
      return gaps;
    };
    await measure(async () => undefined);
    const quiet = await measure(async () => undefined);
    const cut = await measure(async () => server.waitFor(await server.createSnapshots(instanceId)));
    stopping = true;
    await Promise.all(writers);
    for (const client of clients) await client.close();
    figures[`${count} quiet`] = quiet;
    figures[`${count} cut`] = cut;
    for (const [name, gaps] of [
      ['undisturbed', quiet],
      ['cut and upload', cut],
    ] as const) {
      rows.push([
        count,
        name,
        median(gaps.longest).toFixed(1),
        Math.max(...gaps.longest).toFixed(1),
        quantile(gaps.waits, 0.999).toFixed(1),
        Math.round(gaps.waits.length / CUTS / (WINDOW_MILLISECONDS / 1000)),
      ]);
    }
  }
} finally {
  await server.stop();
}
report(
  'cut-gap',
  ['volumes', 'stretch', 'longest wait, median (ms)', 'longest of all (ms)', 'p99.9 (ms)', 'writes/s'],
  rows,
  figures,
);
