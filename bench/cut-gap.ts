/**
 * The longest that a write waits around CreateSnapshots, with 1 to 32 volumes that are all being written to, empty ones
 * and ones of 16 TiB; against QEMU's `transaction` of `blockdev-backup` over as many disks, and against stretches in which
 * nothing is snapshotted. Each volume has one writer (fio, 4 KiB at random, one at a time, so many a second) that never
 * asks for more than can be done: what is measured is the interruption.
 *
 *   node bench/cut-gap.ts [--rounds=5] [--rate=400]
 */
import { median, report, setting } from './support/figures.ts';
import { fio, type Result } from './support/fio.ts';
import { qemuStorageDaemon, rawFiles, requireTools } from './support/peers.ts';
import { startBenchServer } from './support/server.ts';

const ROUNDS = setting('rounds', 5);
const RATE = setting('rate', 400);
const SECONDS = 3;
/** Connecting and hanging up takes longer than a cut, on both sides, and is left out. */
const WINDOW = { fromMilliseconds: 500, toMilliseconds: 2700 };
const AREA_MIB = 32;
const GIB = 1024 ** 3;
const PROFILE = { name: 'writer', rw: 'randwrite', bs: '4k', depth: 1, rate: RATE };
requireTools('fio', 'qemu-storage-daemon');

const pause = (milliseconds: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, milliseconds));
const figures: Record<string, Result[]> = {};
const rows: (string | number)[][] = [];

/** Runs the writers, and half way the cut. */
async function around(uris: readonly string[], cut: () => Promise<void>): Promise<Result> {
  const [result] = await Promise.all([fio(uris, PROFILE, AREA_MIB, SECONDS, WINDOW), pause(1000).then(cut)]);
  return result;
}

for (const [count, sizeGiB] of [
  [1, 1],
  [4, 1],
  [16, 1],
  [32, 1],
  [1, 16_384],
  [16, 16_384],
]) {
  const server = await startBenchServer();
  const { instanceId, volumes } = await server.launch(new Array<number>(count).fill(sizeGiB));
  const uris = volumes.map((volume) => `nbd+unix:///${volume}?socket=${server.nbdSocket}`);
  // ext4's largest file is a little less than 16 TiB.
  const bytes = Math.min(sizeGiB, 16_000) * GIB;
  const files = rawFiles(server.directory, 'qemu', count, bytes);
  const sides: Record<string, Result[]> = { undisturbed: [], 'cut and upload': [], 'QEMU undisturbed': [], QEMU: [] };
  try {
    await fio(uris, { name: 'fill', rw: 'write', bs: '1m', depth: 1 }, AREA_MIB, 1);
    for (let round = 0; round < ROUNDS; round += 1) {
      sides.undisturbed.push(await around(uris, async () => undefined));
      let snapshots: string[] = [];
      sides['cut and upload'].push(
        await around(uris, async () => {
          snapshots = await server.createSnapshots(instanceId);
        }),
      );
      await server.waitFor(snapshots);
      // A backup of 16 TiB of holes takes QEMU minutes; one of 1 GiB is the like of it.
      if (sizeGiB > 1) continue;
      const targets = rawFiles(server.directory, 'backup', count, bytes);
      const qemu = await qemuStorageDaemon(server.directory, files, targets);
      try {
        await fio(qemu.uris, { name: 'fill', rw: 'write', bs: '1m', depth: 1 }, AREA_MIB, 1);
        sides['QEMU undisturbed'].push(await around(qemu.uris, async () => undefined));
        sides.QEMU.push(await around(qemu.uris, () => qemu.backUp()));
        await qemu.backedUp();
      } finally {
        await qemu.stop();
      }
    }
  } finally {
    await server.stop();
  }
  for (const [side, results] of Object.entries(sides)) {
    if (results.length === 0) continue;
    figures[`${count} of ${sizeGiB} GiB, ${side}`] = results;
    const longest = results.map((result) => result.mostMicroseconds / 1000);
    rows.push([
      count,
      sizeGiB === 1 ? '1 GiB' : '16 TiB',
      side,
      median(longest).toFixed(1),
      Math.max(...longest).toFixed(1),
      (median(results.map((result) => result.p999Microseconds)) / 1000).toFixed(1),
      Math.round(median(results.map((result) => result.iops))),
    ]);
  }
}
const headings = [
  'volumes',
  'each',
  'stretch',
  'longest wait, median (ms)',
  'longest of all',
  'p99.9 (ms)',
  'writes/s',
];
report('cut-gap', headings, rows, figures);
