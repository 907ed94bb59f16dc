/**
 * Blocks of a snapshot by the EBS direct APIs, a request each: how many a second, alone; and how long the writes of
 * sixteen volumes are held for cuts meanwhile, against cuts beside which nobody does that. (All of it, the client too, has
 * the machine's processors for itself and the volumes' writers.)
 *
 *   node bench/ebs-direct.ts [--rounds=2] [--seconds=4]
 */
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { promisify } from 'node:util';
import type { SetReport } from '../src/admin/sets.ts';
import { NbdClient } from '../src/nbd/client.ts';
import { median, quantile, report, setting } from './support/figures.ts';
import { fio } from './support/fio.ts';
import { requireTools } from './support/peers.ts';
import { peakMiB } from './support/processes.ts';
import { startBenchServer } from './support/server.ts';

const ROUNDS = setting('rounds', 2);
const SECONDS = setting('seconds', 4);
const MIB = 1024 * 1024;
const DATA_MIB = 256;
const AREA_MIB = 32;
const CUTS = 5;
const WRITER = { name: 'writer', rw: 'randwrite', bs: '4k', depth: 1, rate: 200 };
const CLIENT = new URL('./support/block-client.ts', import.meta.url).pathname;
const TEXT = Buffer.from('words of a text, 0123456789; '.repeat(MIB / 24)).subarray(0, MIB);
requireTools('fio');
const run = promisify(execFile);
const pause = (milliseconds: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, milliseconds));

type What = 'get' | 'put';
type Asked = { blocksPerSecond: number; milliseconds: number[] };
const asked: Record<string, Asked[]> = {};
const holds: Record<string, number[]> = { nobody: [], get: [], put: [] };
const server = await startBenchServer();
let peak = 0;
try {
  const { instanceId, volumes } = await server.launch([1]);
  const client = await NbdClient.connect({ socketPath: server.nbdSocket }, volumes[0]);
  for (let at = 0; at < DATA_MIB; at += 1) await client.write(at * MIB, at % 2 === 0 ? TEXT : randomBytes(MIB));
  await client.close();
  const [snapshot] = await server.createSnapshots(instanceId);
  await server.waitFor([snapshot]);
  const ask = async (what: What, atOnce: number, seconds: number): Promise<Asked> => {
    const settings = [server.apiUrl, server.directory, what, snapshot, String(atOnce), String(seconds)];
    const { stdout } = await run(process.execPath, [CLIENT, ...settings], { maxBuffer: 64 * MIB });
    return JSON.parse(stdout) as Asked;
  };
  const held = async (): Promise<SetReport[]> => (await server.admin.ask<{ sets: SetReport[] }>('sets')).sets;
  const many = await server.launch(new Array<number>(16).fill(1));
  const uris = many.volumes.map((volume) => `nbd+unix:///${volume}?socket=${server.nbdSocket}`);
  await fio(uris, { name: 'fill', rw: 'write', bs: '1m', depth: 1 }, AREA_MIB, 1);
  for (let cut = 0; cut < 2; cut += 1) await server.waitFor(await server.createSnapshots(many.instanceId));
  for (let round = 0; round < ROUNDS; round += 1) {
    for (const what of ['get', 'put'] as const) {
      for (const atOnce of [1, 16, 64]) {
        const name = `${what}, ${atOnce} at once`;
        asked[name] = [...(asked[name] ?? []), await ask(what, atOnce, SECONDS)];
      }
    }
    peak = Math.max(peak, peakMiB(server.pid));
    for (const beside of ['nobody', 'get', 'put'] as const) {
      const before = new Set((await held()).map((set) => set.setId));
      const writing = fio(uris, WRITER, AREA_MIB, CUTS + 4);
      const asking = beside === 'nobody' ? undefined : ask(beside, 16, CUTS + 3);
      await pause(1500);
      for (let cut = 0; cut < CUTS; cut += 1) {
        await server.createSnapshots(many.instanceId);
        await pause(1000);
      }
      await Promise.all([writing, asking]);
      const made = (await held()).filter((set) => !before.has(set.setId) && set.instanceId === many.instanceId);
      holds[beside].push(...made.map((set) => set.holdMilliseconds));
    }
  }
} finally {
  await server.stop();
}

const rows: (string | number)[][] = Object.entries(asked).map(([name, rounds]) => {
  const latencies = rounds.flatMap(({ milliseconds }) => milliseconds);
  const rate = median(rounds.map(({ blocksPerSecond }) => blocksPerSecond));
  return [name, rate.toFixed(0), median(latencies).toFixed(0), quantile(latencies, 0.99).toFixed(0), ''];
});
for (const [beside, times] of Object.entries(holds)) {
  const most = Math.max(...times).toFixed(1);
  const beginning = beside === 'nobody' ? 'beside nobody' : `beside ${beside}, 16 at once`;
  rows.push([`writes held for a cut, ${beginning}`, '', median(times).toFixed(1), '', most]);
}
report('ebs-direct', ['what', 'blocks/s', 'median (ms)', 'p99 (ms)', 'longest (ms)'], rows, { asked, holds, peak });
process.stdout.write(`the server's process: at most ${peak} MiB\n`);
