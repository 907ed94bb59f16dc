/**
 * Random 4 KiB writes at depth 16 while a snapshot of the volume is being stored, in its first seconds, when each is the
 * first to its page, and from then on until it is complete, against undisturbed ones before and after; and the same of
 * QEMU with a backup job.
 *
 *   node bench/upload-io.ts [--rounds=3] [--seconds=4] [--mib=2048]
 */
import { median, report, setting } from './support/figures.ts';
import { fio, fioUntil, type Result } from './support/fio.ts';
import { qemuStorageDaemon, rawFiles, requireTools } from './support/peers.ts';
import { quietDisk } from './support/processes.ts';
import { startBenchServer } from './support/server.ts';

const ROUNDS = setting('rounds', 3);
const SECONDS = setting('seconds', 4);
const MIB = setting('mib', 2048);
/**
 * Before, and again after: a snapshot may take minutes, in which the machine may have become another. So long that the
 * kernel writes back what has been dirty for half a minute, as it does while a snapshot is stored.
 */
const UNDISTURBED_SECONDS = 35;
const PROFILE = { name: 'writer', rw: 'randwrite', bs: '4k', depth: 16 };
requireTools('fio', 'qemu-storage-daemon');

type Stretch = Result & { seconds: number };
const WHO = ['cleancut', 'QEMU'] as const;
const sides: Record<string, Stretch[]> = {};

/** Measures the writes before, at the beginning of, and during the rest of what `begin` begins and `ended` waits for. */
async function around(
  who: (typeof WHO)[number],
  uris: string[],
  begin: () => Promise<void>,
  ended: () => Promise<void>,
): Promise<void> {
  const note = (stretch: 'undisturbed' | 'first seconds' | 'until complete' | 'all of it', result: Stretch): void => {
    const side = `${who}, ${stretch}`;
    sides[side] = [...(sides[side] ?? []), result];
  };
  // The table's first row, though it is known last.
  sides[`${who}, undisturbed`] ??= [];
  // All of it is new to each snapshot: the upload lasts.
  await fio(uris, { name: 'fill', rw: 'write', bs: '1m', depth: 8 }, MIB, SECONDS);
  // What the other side has written is not to be written out in this one's time.
  await quietDisk();
  const before = await fio(uris, PROFILE, MIB, UNDISTURBED_SECONDS);
  await begin();
  const begun = performance.now();
  const since = (): number => (performance.now() - begun) / 1000;
  const complete = ended().then(since);
  const pause = new Promise<void>((resolve) => setTimeout(resolve, SECONDS * 1000));
  const first = await fioUntil(uris, PROFILE, MIB, Promise.race([complete, pause]));
  if (first === undefined) throw new Error(`${who} was ready before fio had begun: give it more to do (--mib)`);
  const beginning = { ...first, seconds: Math.min(since(), SECONDS) };
  note('first seconds', beginning);
  // One that is stored by now: the writer's hanging up takes a moment.
  const isOver = (await Promise.race([complete, pause])) !== undefined;
  const rest = isOver ? undefined : await fioUntil(uris, PROFILE, MIB, complete);
  if (rest === undefined) {
    note('all of it', beginning);
  } else {
    const more = (await complete) - beginning.seconds;
    note('until complete', { ...rest, seconds: more });
    const seconds = beginning.seconds + more;
    const iops = (first.iops * beginning.seconds + rest.iops * more) / seconds;
    note('all of it', { ...rest, iops, p99Microseconds: Number.NaN, seconds });
  }
  const after = await fio(uris, PROFILE, MIB, UNDISTURBED_SECONDS);
  const both = [before, after];
  note('undisturbed', {
    ...before,
    iops: both.reduce((sum, { iops }) => sum + iops / both.length, 0),
    p99Microseconds: Math.max(...both.map(({ p99Microseconds }) => p99Microseconds)),
    seconds: UNDISTURBED_SECONDS * both.length,
  });
}

const server = await startBenchServer();
try {
  const { instanceId, volumes } = await server.launch([MIB / 1024]);
  const uris = volumes.map((volume) => `nbd+unix:///${volume}?socket=${server.nbdSocket}`);
  const [file] = rawFiles(server.directory, 'qemu', 1, MIB * 1024 * 1024);
  for (let round = 0; round < ROUNDS; round += 1) {
    let snapshots: string[] = [];
    await around(
      'cleancut',
      uris,
      async () => {
        snapshots = await server.createSnapshots(instanceId);
      },
      () => server.waitFor(snapshots),
    );
    const [target] = rawFiles(server.directory, 'backup', 1, MIB * 1024 * 1024);
    const qemu = await qemuStorageDaemon(server.directory, [file], [target]);
    try {
      await around('QEMU', qemu.uris, qemu.backUp, qemu.backedUp);
    } finally {
      await qemu.stop();
    }
  }
} finally {
  await server.stop();
}
const rows = Object.entries(sides).map(([side, results]) => {
  const who = WHO.find((each) => side.startsWith(each));
  // Of each round by itself.
  const shares = results.map(({ iops }, round) => iops / sides[`${who}, undisturbed`][round].iops);
  const rate = median(results.map(({ iops }) => iops));
  const p99 = median(results.map(({ p99Microseconds }) => p99Microseconds));
  return [
    side,
    median(results.map(({ seconds }) => seconds)).toFixed(1),
    Math.round(rate),
    Number.isNaN(p99) ? '' : Math.round(p99),
    median(shares).toFixed(2),
  ];
});
report('upload-io', ['stretch', 'seconds', 'writes/s', 'p99 (µs)', '÷ undisturbed'], rows, sides);
