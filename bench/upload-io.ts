/**
 * Random 4 KiB writes at depth 16 while a snapshot of the volume is being stored, against undisturbed ones; and the same of
 * QEMU with a backup job.
 *
 *   node bench/upload-io.ts [--rounds=3] [--seconds=4] [--mib=2048]
 */
import { median, report, setting } from './support/figures.ts';
import { fio, type Result } from './support/fio.ts';
import { qemuStorageDaemon, rawFiles, requireTools } from './support/peers.ts';
import { startBenchServer } from './support/server.ts';

const ROUNDS = setting('rounds', 3);
const SECONDS = setting('seconds', 4);
const MIB = setting('mib', 2048);
const PROFILE = { name: 'writer', rw: 'randwrite', bs: '4k', depth: 16 };
requireTools('fio', 'qemu-storage-daemon');

const server = await startBenchServer();
const sides: Record<string, Result[]> = {
  undisturbed: [],
  'during the upload': [],
  'QEMU undisturbed': [],
  'QEMU, during the backup': [],
};
try {
  const { instanceId, volumes } = await server.launch([MIB / 1024]);
  const uris = volumes.map((volume) => `nbd+unix:///${volume}?socket=${server.nbdSocket}`);
  const [file] = rawFiles(server.directory, 'qemu', 1, MIB * 1024 * 1024);
  const fill = { name: 'fill', rw: 'write', bs: '1m', depth: 8 };
  for (let round = 0; round < ROUNDS; round += 1) {
    // All of it is new to each snapshot: the upload lasts.
    await fio(uris, fill, MIB, SECONDS);
    sides.undisturbed.push(await fio(uris, PROFILE, MIB, SECONDS));
    const snapshots = await server.createSnapshots(instanceId);
    sides['during the upload'].push(await fio(uris, PROFILE, MIB, SECONDS));
    await server.waitFor(snapshots);
    const [target] = rawFiles(server.directory, 'backup', 1, MIB * 1024 * 1024);
    const qemu = await qemuStorageDaemon(server.directory, [file], [target]);
    try {
      await fio(qemu.uris, fill, MIB, SECONDS);
      sides['QEMU undisturbed'].push(await fio(qemu.uris, PROFILE, MIB, SECONDS));
      await qemu.backUp();
      sides['QEMU, during the backup'].push(await fio(qemu.uris, PROFILE, MIB, SECONDS));
      await qemu.backedUp();
    } finally {
      await qemu.stop();
    }
  }
} finally {
  await server.stop();
}
const rate = (side: string): number => median(sides[side].map((result) => result.iops));
const rows = Object.keys(sides).map((side) => [
  side,
  Math.round(rate(side)),
  Math.round(median(sides[side].map((result) => result.p99Microseconds))),
  (rate(side) / rate(side.startsWith('QEMU') ? 'QEMU undisturbed' : 'undisturbed')).toFixed(2),
]);
report('upload-io', ['stretch', 'writes/s', 'p99 (µs)', '÷ undisturbed'], rows, sides);
