/** Cleancut's volumes beside nbdkit's and qemu-nbd's, one at a time, and how a table compares them. */
import { median } from './figures.ts';
import { fio, type Result } from './fio.ts';
import { nbdkit, qemuNbd, rawFiles } from './peers.ts';
import { startBenchServer } from './server.ts';

export const CONTESTANTS = ['cleancut', 'nbdkit', 'qemu-nbd'] as const;
export type Contestant = (typeof CONTESTANTS)[number];

export type NbdContest = {
  /** Of each, so many exports. */
  uris: Record<Contestant, string[]>;
  stop: () => Promise<void>;
};

/** So many volumes of each, written to once in so many seconds: no one is to read holes. */
export async function startContest(volumeCount: number, sizeGiB: number, fillSeconds: number): Promise<NbdContest> {
  const server = await startBenchServer();
  const { volumes } = await server.launch(new Array(volumeCount).fill(sizeGiB));
  const files = (name: string): string[] => rawFiles(server.directory, name, volumeCount, sizeGiB * 1024 ** 3);
  const peers = [await nbdkit(server.directory, files('nbdkit')), await qemuNbd(server.directory, files('qemu'))];
  const uris = {
    cleancut: volumes.map((volume) => `nbd+unix:///${volume}?socket=${server.nbdSocket}`),
    nbdkit: peers[0].uris,
    'qemu-nbd': peers[1].uris,
  };
  const stop = async (): Promise<void> => {
    for (const peer of peers) await peer.stop();
    await server.stop();
  };
  try {
    for (const name of CONTESTANTS)
      await fio(uris[name], { name: 'fill', rw: 'write', bs: '1m', depth: 8 }, sizeGiB * 1024, fillSeconds);
  } catch (error) {
    await stop();
    throw error;
  }
  return { uris, stop };
}

export const COMPARISON_HEADINGS = [...CONTESTANTS, '÷ nbdkit', '÷ qemu-nbd', 'p99 ÷ nbdkit'];

/** Medians of all rounds: the cells under these headings, and the ratios of the rates. */
export function compare(results: Record<Contestant, readonly Result[]>): {
  cells: string[];
  rates: Record<'nbdkit' | 'qemu-nbd', number>;
} {
  const rate = (name: Contestant): number => median(results[name].map(({ iops }) => iops));
  const p99 = (name: Contestant): number => median(results[name].map(({ p99Microseconds }) => p99Microseconds));
  const rates = { nbdkit: rate('cleancut') / rate('nbdkit'), 'qemu-nbd': rate('cleancut') / rate('qemu-nbd') };
  const cells = [
    ...CONTESTANTS.map((name) => `${Math.round(rate(name))} (p99 ${Math.round(p99(name))} µs)`),
    rates.nbdkit.toFixed(2),
    rates['qemu-nbd'].toFixed(2),
    (p99('cleancut') / p99('nbdkit')).toFixed(2),
  ];
  return { cells, rates };
}
