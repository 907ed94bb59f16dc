/**
 * Snapshots and restores with the object store in a network: an S3 server (s3rver) that is next door, and the same one so
 * many milliseconds away. A dense volume, and one that has a page in each of its 1,000 GiB.
 *
 *   node bench/far-store.ts [--mib=1024] [--rtt=30]
 */
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { promisify } from 'node:util';
import { AttachVolumeCommand, CreateVolumeCommand } from '@aws-sdk/client-ec2';
import { NbdClient } from '../src/nbd/client.ts';
import { startS3Server } from '../test/support/s3-server.ts';
import { startDistance } from './support/distance.ts';
import { report, setting } from './support/figures.ts';
import { quietDisk } from './support/processes.ts';
import { startBenchServer } from './support/server.ts';

const DENSE_MIB = setting('mib', 1024);
const ROUND_TRIP = setting('rtt', 30);
const SPARSE_GIB = 1000;
const MIB = 1024 * 1024;
const BIN = new URL('../bin/cleancut.js', import.meta.url).pathname;
const run = promisify(execFile);

/** Seconds of each step. */
async function measure(roundTrip: number): Promise<Map<string, number>> {
  const seconds = new Map<string, number>();
  const time = async <Answer>(what: string, step: () => Promise<Answer>): Promise<Answer> => {
    await quietDisk();
    const begun = performance.now();
    const answer = await step();
    seconds.set(what, (performance.now() - begun) / 1000);
    return answer;
  };
  const ends: (() => unknown)[] = [];
  const s3 = await startS3Server({ after: (end) => void ends.unshift(end) });
  Object.assign(process.env, s3.environment);
  const distance = await startDistance(
    Number(new URL(new URL(s3.url).searchParams.get('endpoint') ?? '').port),
    roundTrip,
  );
  ends.unshift(distance.stop);
  const store = s3.url.replace(/127\.0\.0\.1:\d+/, `127.0.0.1:${distance.port}`);
  const server = await startBenchServer(['--object-store', store]);
  ends.unshift(server.stop);
  try {
    const { instanceId, volumes } = await server.launch([Math.ceil(DENSE_MIB / 1024), SPARSE_GIB]);
    const clients = await Promise.all(
      volumes.map((volume) => NbdClient.connect({ socketPath: server.nbdSocket }, volume)),
    );
    const [dense, sparse] = clients;
    const snapshot = (what: string): Promise<string[]> =>
      time(what, async () => {
        const ids = await server.createSnapshots(instanceId);
        await server.waitFor(ids);
        return ids;
      });
    await snapshot('first, of nothing');
    for (let at = 0; at < DENSE_MIB * MIB; at += MIB) await dense.write(at, randomBytes(MIB));
    await snapshot(`${DENSE_MIB} MiB of random bytes`);
    const scatter = async (): Promise<void> => {
      for (let gib = 0; gib < SPARSE_GIB; gib += 1) await sparse.write(gib * 1024 * MIB, randomBytes(4096));
    };
    await scatter();
    await snapshot(`a page in each of ${SPARSE_GIB} GiB`);
    await scatter();
    await snapshot('the same pages once more');
    const ids = await snapshot('nothing changed');
    for (const [index, name] of ['dense', 'sparse'].entries()) {
      await quietDisk();
      const begun = performance.now();
      const made = await server.ec2.send(
        new CreateVolumeCommand({ AvailabilityZone: 'us-east-1a', SnapshotId: ids[index] }),
      );
      const attach = { VolumeId: made.VolumeId, InstanceId: instanceId, Device: `/dev/sdz${'yz'[index]}` };
      await server.ec2.send(new AttachVolumeCommand(attach));
      const restored = await NbdClient.connect({ socketPath: server.nbdSocket }, made.VolumeId ?? '');
      await restored.read(0, 4096);
      seconds.set(`${name}: first byte of a restore`, (performance.now() - begun) / 1000);
      const isWhole = async (): Promise<boolean> => {
        const { volumes: shown } = await server.admin.ask<{ volumes: { volumeId: string; hydratedShare: number }[] }>(
          'volumes',
        );
        return shown.find(({ volumeId }) => volumeId === made.VolumeId)?.hydratedShare === 1;
      };
      while (!(await isWhole())) await new Promise((resolve) => setTimeout(resolve, 20));
      seconds.set(`${name}: all of it`, (performance.now() - begun) / 1000);
      await restored.close();
      const image = `${server.directory}/${name}.raw`;
      await time(`${name}: export`, () =>
        run(process.execPath, [BIN, 'export', ids[index], image, '--object-store', store]),
      );
    }
    for (const client of clients) await client.close();
    await time('verify both', () => run(process.execPath, [BIN, 'verify', ...ids, '--object-store', store]));
    return seconds;
  } finally {
    for (const end of ends) await end();
  }
}

const [near, far] = [await measure(0), await measure(ROUND_TRIP)];
const rows = [...near].map(([what, seconds]) => [what, seconds.toFixed(2), (far.get(what) ?? Number.NaN).toFixed(2)]);
report('far-store', ['seconds', 'next door', `${ROUND_TRIP} ms away`], rows, {
  near: Object.fromEntries(near),
  far: Object.fromEntries(far),
});
