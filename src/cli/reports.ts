import type { RestoredSet } from '../admin/restore-set.ts';
import type { SetReport, SetsReport } from '../admin/sets.ts';
import type { VolumesReport } from '../admin/volumes.ts';
import type { CollectReport } from '../lifecycle/repacker.ts';
import { formatBytes } from '../types/units.ts';
import { connectToServer, type DataDirFlag } from './connection.ts';
import { print } from './output.ts';

type Flags = DataDirFlag & { json?: boolean };

export async function status(flags: Flags): Promise<void> {
  const report = await connectToServer(flags).ask<Record<string, unknown>>('status');
  const rows = Object.entries(report).map(([name, value]) => [name, shown(name, value)]);
  print(flags.json, report, ['what', 'now'], rows);
}

export async function volumes(flags: Flags): Promise<void> {
  const report = await connectToServer(flags).ask<VolumesReport>('volumes');
  const rows = report.volumes.map((volume) => [
    volume.volumeId,
    `${volume.sizeGiB} GiB`,
    volume.state,
    volume.instanceId ?? '',
    volume.device ?? '',
    volume.connections,
    volume.reads,
    volume.writes,
    formatBytes(volume.stagedBytes),
    `${Math.floor(volume.hydratedShare * 100)}%`,
  ]);
  const headings = [
    'volume',
    'size',
    'state',
    'instance',
    'device',
    'clients',
    'reads',
    'writes',
    'old pages',
    'local',
  ];
  print(flags.json, report, headings, rows);
  if (report.silentWorkers > 0) {
    const which = report.silentWorkers === 1 ? 'A data-plane worker does' : `${report.silentWorkers} workers do`;
    process.stderr.write(`${which} not answer: clients, requests and pages of their volumes are not known\n`);
  }
}

export async function sets(flags: Flags & { latest?: number }): Promise<void> {
  const report = { sets: await latestSets(flags, flags.latest ?? Number.POSITIVE_INFINITY) };
  const rows = report.sets.flatMap((set) =>
    set.snapshots.map((snapshot, index) => [
      ...(index === 0
        ? [set.setId, set.instanceId ?? '', set.startedAt, `${set.holdMilliseconds.toFixed(1)} ms`, set.state]
        : ['', '', '', '', '']),
      snapshot.snapshotId,
      snapshot.device ?? '',
      progressIn(snapshot),
      formatBytes(snapshot.dataBytes),
      formatBytes(snapshot.storedBytes),
    ]),
  );
  const headings = ['set', 'instance', 'cut at', 'hold', 'state', 'snapshot', 'device', 'progress', 'data', 'stored'];
  print(flags.json, report, headings, rows);
}

/** Of a snapshot that cannot be used, why. */
function progressIn({ state, tier, progress }: SetReport['snapshots'][number]): string {
  if (state === 'recoverable') return 'in the bin';
  return tier === 'archive' ? 'archived' : progress;
}

async function latestSets(flags: Flags, most: number): Promise<SetReport[]> {
  const server = connectToServer(flags);
  const pages: SetReport[][] = [];
  let page: SetsReport | undefined;
  do {
    const before = page?.earlier;
    page = await server.ask<SetsReport>('sets', before === undefined ? {} : { before });
    pages.unshift(page.sets);
  } while (page.earlier !== undefined && pages.reduce((sum, { length }) => sum + length, 0) < most);
  return pages.flat().slice(-most);
}

export async function restore(setId: string, flags: Flags & { zone?: string }): Promise<void> {
  const zone = flags.zone === undefined ? {} : { zone: flags.zone };
  const restored = await connectToServer(flags).ask<RestoredSet>('restore-set', { setId, ...zone });
  const rows = restored.volumes.map((volume) => [
    restored.instanceId,
    volume.device,
    volume.volumeId,
    volume.snapshotId ?? '',
  ]);
  print(flags.json, restored, ['instance', 'device', 'volume', 'from'], rows);
  if (flags.json === true || restored.inRecycleBin.length === 0) return;
  const leftOut = restored.inRecycleBin.map((id) => [id]);
  print(false, restored, ['left out, as it is in the recycle bin'], leftOut);
}

export async function collectGarbage(flags: Flags & { dryRun?: boolean; insist?: boolean }): Promise<void> {
  const order = { remove: flags.dryRun !== true, insist: flags.insist === true };
  const collected = await connectToServer(flags).ask<CollectReport>('collect', order);
  if (collected.busy !== undefined) {
    const advice = order.insist ? 'try again later' : 'try again later, or with --insist';
    throw new Error(`nothing was collected: ${collected.busy}; ${advice}`);
  }
  const { objects, garbageBytes, liveBytes, removed, repacked } = collected;
  const row = [removed ? 'removed' : 'would be removed', objects, formatBytes(garbageBytes), formatBytes(liveBytes)];
  print(flags.json, collected, ['garbage', 'objects', 'bytes', 'in use'], [row]);
  if (flags.json === true || repacked === undefined || repacked.packs === 0) return;
  const { packs, movedBytes, deadBytes } = repacked;
  const emptied = [removed ? 'emptied' : 'would be emptied', packs, formatBytes(movedBytes), formatBytes(deadBytes)];
  print(false, repacked, ['packs mostly dead', 'packs', 'moved', 'free in a day'], [emptied]);
}

function shown(name: string, value: unknown): string {
  if (name.endsWith('Bytes') && typeof value === 'number') return formatBytes(value);
  if (typeof value === 'object' && value !== null) {
    return Object.entries(value)
      .map(([state, count]) => `${count} ${state}`)
      .join(', ');
  }
  return String(value);
}
