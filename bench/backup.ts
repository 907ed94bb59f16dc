/**
 * Snapshots, and what comes back from them, against restic and borg on the same image and the same disk: a full one (half
 * of it random bytes, half text-like), one after 100 MiB were changed all over it, one after nothing was; then restores,
 * in turns.
 *
 *   node bench/backup.ts [--mib=2048]
 */
import { createCipheriv } from 'node:crypto';
import { closeSync, mkdirSync, openSync, readSync, rmSync, writeSync } from 'node:fs';
import { AttachVolumeCommand, CreateVolumeCommand } from '@aws-sdk/client-ec2';
import { NbdClient } from '../src/nbd/client.ts';
import { median, report, setting } from './support/figures.ts';
import { fio } from './support/fio.ts';
import { requireTools } from './support/peers.ts';
import {
  contents,
  dropCaches,
  processorSeconds,
  processTree,
  quietDisk,
  residentMiB,
  timed,
} from './support/processes.ts';
import { startBenchServer } from './support/server.ts';

const SIZE_MIB = setting('mib', 2048);
const RESTORES = 3;
const CHANGES = 1600;
const CHANGE_BYTES = 64 * 1024;
const MIB = 1024 * 1024;
requireTools('restic', 'borg', 'fio');

const server = await startBenchServer();
const { instanceId, volumes } = await server.launch([SIZE_MIB / 1024]);
const image = `${server.directory}/image.raw`;
const file = openSync(image, 'w+');
const client = await NbdClient.connect({ socketPath: server.nbdSocket }, volumes[0]);
const random = createCipheriv('aes-128-ctr', Buffer.alloc(16, 1), Buffer.alloc(16));
const randomBytes = (length: number): Buffer => random.update(Buffer.alloc(length));
const WORDS = ['volume', 'the', 'of', 'snapshot', 'INFO', 'error', 'request', '127.0.0.1', 'select', 'from', 'block'];
const text = (length: number): Buffer => {
  const words: string[] = [];
  for (const byte of randomBytes(Math.ceil(length / 5))) words.push(WORDS[byte % WORDS.length] ?? '', String(byte));
  return Buffer.from(words.join(' ')).subarray(0, length);
};
const put = async (bytes: Buffer, at: number): Promise<void> => {
  writeSync(file, bytes, 0, bytes.length, at);
  await client.write(at, bytes);
};

type Taken = { seconds: number; processorSeconds: number; bytes: number; files: number };
const results: Record<string, Record<string, Taken>> = {};
const note = (what: string, who: string, taken: Taken): void => {
  results[what] = { ...results[what], [who]: taken };
};
/** What a step adds to a directory, with what it takes. */
const added = async (
  directory: string,
  step: () => Promise<{ seconds: number; processorSeconds: number }>,
): Promise<Taken> => {
  const before = contents(directory);
  const taken = await step();
  const after = contents(directory);
  return { ...taken, bytes: after.bytes - before.bytes, files: after.files - before.files };
};
const pids = (): number[] => processTree(server.pid);
const snapshotted = async (): Promise<{ seconds: number; processorSeconds: number }> => {
  await quietDisk();
  const [begun, busy] = [performance.now(), processorSeconds(pids())];
  snapshots = await server.createSnapshots(instanceId);
  await server.waitFor(snapshots);
  return { seconds: (performance.now() - begun) / 1000, processorSeconds: processorSeconds(pids()) - busy };
};
let snapshots: string[] = [];
let most = 0;
/** @throws when a file is not what the image is */
const compare = (path: string): void => {
  const [found, expected] = [Buffer.alloc(MIB), Buffer.alloc(MIB)];
  const copy = openSync(path, 'r');
  for (let at = 0; at < SIZE_MIB * MIB; at += MIB) {
    readSync(copy, found, 0, MIB, at);
    readSync(file, expected, 0, MIB, at);
    if (!found.equals(expected)) throw new Error(`${path} differs at ${at}`);
  }
  closeSync(copy);
};
const restic = {
  RESTIC_REPOSITORY: `${server.directory}/restic`,
  RESTIC_PASSWORD: 'none',
  XDG_CACHE_HOME: `${server.directory}/cache`,
};
const borg = {
  BORG_REPO: `${server.directory}/borg`,
  BORG_BASE_DIR: `${server.directory}/borg-home`,
  BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK: 'yes',
};
try {
  await timed(['restic', 'init'], restic);
  await timed(['borg', 'init', '-e', 'none'], borg);
  // Pieces of both kinds in turns, as files lie on a disk.
  for (let at = 0; at < SIZE_MIB * MIB; at += MIB) await put(at % (2 * MIB) === 0 ? randomBytes(MIB) : text(MIB), at);
  let number = 0;
  const all = async (what: string): Promise<void> => {
    number += 1;
    await client.flush();
    note(what, 'cleancut', await added(`${server.directory}/objects`, snapshotted));
    most = Math.max(most, ...residentMiB(pids()));
    note(what, 'restic', await added(restic.RESTIC_REPOSITORY, () => timed(['restic', 'backup', image], restic)));
    const create = ['borg', 'create', '--compression', 'zstd,1', `::${number}`, image];
    note(what, 'borg', await added(borg.BORG_REPO, () => timed(create, borg)));
  };
  await all('full');
  for (let change = 0; change < CHANGES; change += 1) {
    const slots = (SIZE_MIB * MIB) / CHANGE_BYTES;
    await put(randomBytes(CHANGE_BYTES), (randomBytes(4).readUInt32LE() % slots) * CHANGE_BYTES);
  }
  await all('100 MiB changed');
  await all('nothing changed');
  await client.close();

  // Back again: to a file, then to a volume. What the peers have just stored is in the page cache still, where cleancut's
  // packs never are; who needs a backup has no such luck, so that there is a second time.
  const back = `${server.directory}/back`;
  const bin = new URL('../bin/cleancut.js', import.meta.url).pathname;
  const fromStore = ['--object-store', `file://${server.directory}/objects`];
  const restores = {
    cleancut: () => timed([process.execPath, bin, 'export', snapshots[0], `${back}/image.raw`, ...fromStore]),
    restic: () => timed(['restic', 'restore', 'latest', '--target', `${back}/restic`], restic),
    borg: () => timed(['borg', 'extract', `::${number}`], borg, `${back}/borg`),
  };
  const cold = 'with cold caches';
  const isRoot = process.getuid?.() === 0;
  if (!isRoot) process.stderr.write('Only root may drop caches: no restores with cold ones.\n');
  for (const what of ['restore to a file', ...(isRoot ? [cold] : [])]) {
    const taken: Record<string, { seconds: number; processorSeconds: number; onDiskSeconds: number }[]> = {};
    for (let round = 0; round < RESTORES; round += 1) {
      for (const [who, restore] of Object.entries(restores)) {
        rmSync(back, { recursive: true, force: true });
        mkdirSync(`${back}/borg`, { recursive: true });
        if (what === cold) await dropCaches();
        const done = await restore();
        // An export ends with a sync, the peers' restores do not.
        const ended = performance.now();
        await quietDisk();
        const onDiskSeconds = done.seconds + (performance.now() - ended) / 1000;
        taken[who] = [...(taken[who] ?? []), { ...done, onDiskSeconds }];
        if (who === 'cleancut') compare(`${back}/image.raw`);
      }
    }
    for (const [who, all] of Object.entries(taken)) {
      const seconds = median(all.map((each) => each.seconds));
      const busy = median(all.map((each) => each.processorSeconds));
      note(what, who, { seconds, processorSeconds: busy, bytes: 0, files: 0 });
    }
    for (const [who, all] of Object.entries(taken)) {
      const seconds = median(all.map((each) => each.onDiskSeconds));
      const busy = median(all.map((each) => each.processorSeconds));
      note(`${what}, and synced`, who, { seconds, processorSeconds: busy, bytes: 0, files: 0 });
    }
  }

  await quietDisk();
  const begun = performance.now();
  const made = await server.ec2.send(
    new CreateVolumeCommand({ AvailabilityZone: 'us-east-1a', SnapshotId: snapshots[0] }),
  );
  const attach = { VolumeId: made.VolumeId, InstanceId: instanceId, Device: '/dev/sdzz' };
  await server.ec2.send(new AttachVolumeCommand(attach));
  const restored = await NbdClient.connect({ socketPath: server.nbdSocket }, made.VolumeId ?? '');
  await restored.read(((SIZE_MIB * MIB) / 2) | 0, 4096);
  const firstByte = performance.now() - begun;
  await restored.close();
  const uri = `nbd+unix:///${made.VolumeId}?socket=${server.nbdSocket}`;
  const firstReads = await fio([uri], { name: 'cold', rw: 'randread', bs: '4k', depth: 16 }, SIZE_MIB, 1);
  const hydrated = async (): Promise<boolean> => {
    const { volumes: shown } = await server.admin.ask<{ volumes: { volumeId: string; hydratedShare: number }[] }>(
      'volumes',
    );
    return shown.find(({ volumeId }) => volumeId === made.VolumeId)?.hydratedShare === 1;
  };
  while (!(await hydrated())) await new Promise((resolve) => setTimeout(resolve, 20));
  const whole = performance.now() - begun;

  const rows = Object.entries(results).flatMap(([what, by]) =>
    Object.entries(by).map(([who, { seconds, processorSeconds: busy, bytes, files }]) => [
      what,
      who,
      seconds.toFixed(2),
      busy.toFixed(2),
      (bytes / MIB).toFixed(1),
      files,
      (seconds / (by.cleancut?.seconds ?? 1)).toFixed(1),
    ]),
  );
  report('backup', ['what', 'who', 'seconds', 'processor s', 'MiB stored', 'objects', '÷ cleancut'], rows, {
    results,
    firstByteMilliseconds: firstByte,
    coldReads: firstReads,
    hydratedMilliseconds: whole,
    mostResidentMiB: most,
  });
  const rate = SIZE_MIB / (whole / 1000);
  process.stdout.write(
    `restored to a volume: first byte after ${firstByte.toFixed(0)} ms (volume made, attached, connected, read), ` +
      `${Math.round(firstReads.iops)} random reads/s in the first second, whole after ${(whole / 1000).toFixed(1)} s ` +
      `(${Math.round(rate)} MiB/s); largest process ${Math.round(most)} MiB\n`,
  );
} finally {
  closeSync(file);
  await server.stop();
}
