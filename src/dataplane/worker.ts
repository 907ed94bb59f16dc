/** A data-plane process: owns some of the volumes, serves their NBD connections, and uploads their cuts. */
import { access } from 'node:fs/promises';
import type { Socket } from 'node:net';
import { DataKey } from '../encryption/data-key.ts';
import { answeredRequests, type IoCounters, newIoCounters } from '../nbd/io-counters.ts';
import { Transmission } from '../nbd/transmission.ts';
import { addStoreFigures, noStoreFigures } from '../objects/measured-store.ts';
import { realPatience } from '../objects/patience.ts';
import { SnapshotSource } from '../snapshots/snapshot-source.ts';
import { withDeadline } from '../types/deadline.ts';
import type { VolumeId } from '../types/ids.ts';
import { monotonicMilliseconds } from '../types/monotonic.ts';
import type { Sha256 } from '../types/units.ts';
import { blockCount } from '../types/units.ts';
import type { CutVolume, OpenVolume } from '../volumes/engine.ts';
import { LocalEngine } from '../volumes/local-engine.ts';
import { NodeDisk } from '../volumes/node-disk.ts';
import { CutPartners } from './cut-partners.ts';
import { type Fetcher, startFetcher } from './hydration-source.ts';
import { journalPath } from './journal-path.ts';
import type {
  OwnerMethods,
  ServeOrder,
  ServerMethods,
  UploadMethods,
  UploadThreadData,
  WorkerMethods,
  WorkerSettings,
} from './messages.ts';
import type { GuestLoad } from './pace.ts';
import { type RpcMessage, RpcPeer } from './rpc.ts';
import { SnapshotExport } from './snapshot-export.ts';
import { startThread } from './start-thread.ts';
import { lowerHelperThreads, raiseGuestsThread } from './thread-priorities.ts';
import { openForGuests } from './threaded-store.ts';
import { type VolumeUse, WorkerVolumes } from './worker-volumes.ts';

/** A guest's read waits this long for an object store that fails, or is silent; then it gets an I/O error. */
const READ_PATIENCE_MILLISECONDS = 30_000;

// The server is gone (killed, perhaps): what is not acknowledged never was; the next server takes it from here.
process.on('disconnect', () => process.exit(0));
// Gone before this process could listen: that is not said again, and it would wait for nobody for ever.
if (!process.connected) process.exit(0);

const settings = JSON.parse(process.env.CLEANCUT_WORKER ?? '') as WorkerSettings;
const disk = new NodeDisk();
lowerHelperThreads();
// libuv's threads are begun by the first who needs one, and take over its priority: guests' flushes run on them, so that
// must not be the thread that gives way, nor may they all go before the rest of the machine.
await access(settings.volumesDirectory);
raiseGuestsThread();
const { store, figures: readFigures } = await openForGuests(settings);
const patience = realPatience(READ_PATIENCE_MILLISECONDS);
const engine = new LocalEngine({
  disk,
  directory: settings.volumesDirectory,
  bootId: settings.bootId,
  stagingLimitBytes: settings.stagingLimitBytes,
  onCutLost: (cut, reason) => server.tell('cutLost', { cut, reason }),
  onFault: (volumeId, reason) =>
    server.tell('log', {
      level: 'error',
      message: `${volumeId}: ${reason}. Its clients get I/O errors until it has been detached and attached again; what they had not flushed may be gone. See to the disk first.`,
    }),
  startTimer: (milliseconds, expire) => {
    const timer = setTimeout(expire, milliseconds);
    return () => clearTimeout(timer);
  },
});
let fetcher: Fetcher | undefined;
const partners = new CutPartners();
const volumes = new WorkerVolumes(engine, disk, store, patience, () => {
  fetcher ??= startFetcher(settings);
  return fetcher;
});
let stopping = false;
/** Connections that were handed over and may not speak yet. */
const waiting = new Map<number, { order: ServeOrder; socket: Socket }>();
/** Cuts that the upload thread is at, or that wait there. */
const capturing = new Set<string>();
const snapshotExports = new Map<Sha256, { target: SnapshotExport; connections: number; counters: IoCounters }>();

const methods: WorkerMethods = {
  createVolume: (volume) => volumes.create({ ...volume, key: dataKey(volume.key) }),

  async removeVolume({ volumeId }) {
    await endConnections(volumes.get(volumeId));
    await volumes.remove(volumeId);
  },

  exportVolume: (opening) =>
    volumes.use(opening, (use) => {
      use.exported = true;
      return use.volume.sizeBytes;
    }),

  async endExport({ volumeId }) {
    const use = volumes.get(volumeId);
    if (use === undefined) return;
    use.exported = false;
    await endConnections(use);
    try {
      // Of one that has refused a flush already its clients know, and it must not stay for ever.
      if (use.volume.fault === undefined) await use.volume.flush();
    } finally {
      await volumes.closeIfIdle(volumeId);
    }
  },

  growVolume: ({ opening, sizeBytes }) => volumes.use(opening, () => engine.grow(opening.volumeId, sizeBytes)),

  hydrate: (opening) =>
    volumes.use(opening, async ({ volume }) => {
      await engine.hydrate(opening.volumeId);
      return !volume.hydrating;
    }),

  forgetHistory: ({ opening, reason }) => volumes.use(opening, () => engine.forgetHistory(opening.volumeId, reason)),

  async prepareCut(order) {
    const claimed: VolumeId[] = [];
    try {
      for (const opening of order.volumes) {
        await volumes.claim(opening);
        claimed.push(opening.volumeId);
      }
      await engine.prepareCut(order.volumes.map(({ volumeId }) => volumeId));
    } catch (error) {
      await methods.endPreparation({ volumeIds: claimed });
      throw error;
    }
  },

  meet({ worker }, socket?: Socket) {
    // No socket: the other worker has ended on the way.
    if (socket !== undefined) partners.meet(worker, socket);
  },

  async cut({ token, volumeIds, others, deadlineMilliseconds }) {
    const heldAt = monotonicMilliseconds();
    // Held before anyone hears of it: another worker cuts, and lets its writes go, as soon as it does.
    await engine.hold(token, volumeIds, deadlineMilliseconds);
    try {
      await withDeadline(deadlineMilliseconds, 'the hold', partners.allHold(token, others));
      const cuts = engine.cut(token);
      const freeAt = monotonicMilliseconds();
      for (const { volumeId, boundary } of cuts) volumes.get(volumeId)?.pendingCuts.add(boundary);
      return { cuts, heldAt, freeAt };
    } finally {
      engine.release(token);
    }
  },

  release(order) {
    engine.release(order.token);
  },

  async endPreparation(order) {
    for (const volumeId of order.volumeIds) await volumes.release(volumeId);
  },

  resumeCuts: (opening) =>
    volumes.use(opening, ({ volume }) =>
      opening.pendingCuts.flatMap((boundary) => {
        const reason = volume.resumeCut(boundary);
        return reason === undefined ? [] : [{ boundary, reason }];
      }),
    ),

  async capture({ opening, ...order }) {
    const { volumeId, boundary } = order.cut;
    // After a worker's death the volume may not be open yet.
    const hydrating = await volumes.use(opening, ({ volume, pendingCuts }) => {
      const lost = volume.resumeCut(boundary);
      if (lost !== undefined) throw new Error(lost);
      // It keeps the volume open from here on.
      pendingCuts.add(boundary);
      return volume.hydrating;
    });
    const { key, origin, originKey } = opening;
    const absentFrom =
      origin === undefined || order.base.root !== undefined ? undefined : { root: origin, key: originKey };
    const directory = engine.directoryOf(volumeId);
    const cut = cutKey(order.cut);
    capturing.add(cut);
    const captured = await uploads
      .call('capture', { ...order, directory, key, hydrating, absentFrom })
      .finally(() => capturing.delete(cut));
    // Before anyone says that it is complete: the disk may have refused, unseen by all, what was read since.
    await engine.confirmCut(order.cut);
    return captured;
  },

  recode: (order) => uploads.call('recode', order),
  cancelRecode: (order) => uploads.tell('cancelRecode', order),
  repack: (order) => uploads.call('repack', order),

  async finishCut({ cut, completed }) {
    if (capturing.has(cutKey(cut))) await uploads.call('cancel', { cut });
    engine.finishCut(cut, completed);
    await disk.removeLater(journalPath(engine.directoryOf(cut.volumeId), cut.boundary));
    const use = volumes.get(cut.volumeId);
    use?.pendingCuts.delete(cut.boundary);
    // What was cut once will be again: then its files are there already. (Where there is no room, that cut will say so.)
    if (use?.exported) use.volume.prepareCut().catch(() => undefined);
    await volumes.closeIfIdle(cut.volumeId);
  },

  activity: () =>
    [...volumes.all()].map(([volumeId, use]) => ({
      volumeId,
      connections: use.connections.size,
      ...use.counters,
      stagedBytes: use.volume.stagedBytes,
      hydratedBlocks: use.volume.hydratedBlocks,
      blocks: blockCount(use.volume.sizeBytes),
      fault: use.volume.fault,
    })),

  async storeFigures() {
    const figures = noStoreFigures();
    addStoreFigures(figures, await readFigures());
    addStoreFigures(figures, await uploads.call('storeFigures', {}));
    if (fetcher !== undefined) addStoreFigures(figures, await fetcher.peer.call('storeFigures', {}));
    return figures;
  },

  serve(order, socket?: Socket) {
    // No socket: the client hung up on the way.
    if (socket === undefined) return;
    socket.on('error', () => socket.destroy());
    waiting.set(order.connection, { order, socket });
    server.tell('taken', { connection: order.connection });
  },

  begin({ connection }) {
    const taken = waiting.get(connection);
    waiting.delete(connection);
    // While the worker stops it comes too late: it would write to files that are being closed.
    if (stopping) taken?.socket.destroy();
    else if (taken !== undefined) serve(taken.order, taken.socket);
  },

  async stop() {
    stopping = true;
    await Promise.all([...volumes.all()].map(([, use]) => endConnections(use)));
    const cuts = [...volumes.all()].flatMap(([volumeId, use]) =>
      [...use.pendingCuts].map((boundary) => ({ volumeId, boundary })),
    );
    // Uploads go on from their journals after the next start.
    await Promise.all(cuts.map((cut) => uploads.call('cancel', { cut })));
    await volumes.closeAll();
    // Until a thread has answered it may still be loading native code: ended in the midst of that, it aborts the process.
    await methods.storeFigures({});
    // The answer first; then the process ends.
    setImmediate(() => process.exit(0));
  },
};

// From here to the end nothing may be awaited: the server's calls are answered as soon as they come.
const server = new RpcPeer<ServerMethods>(
  {
    post: (messages, socket) => {
      process.send?.(messages, socket);
    },
    onMessages: (receive) =>
      process.on('message', (messages, socket) => receive(messages as RpcMessage[], socket as Socket | undefined)),
  },
  methods,
);
// A terminal's Ctrl-C and a service manager's stop go to every process; the server says when a worker is to end.
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => undefined);

const ownerMethods: OwnerMethods = {
  changedBlocks: ({ cut, since, from, most }) => engine.changedBlocks(cut, since, from, most),
  writtenPages: ({ cut, since, blocks }) => blocks.map((block) => engine.writtenPages(cut, since, block)),
  blocksAsOfCut: ({ cut, blocks }) => ({
    blocks: blocks.map((block) => engine.blockAsOfCut(cut, block)),
    load: guestLoad(),
  }),
  captured: ({ cut, blocks }) => engine.captured(cut, blocks),
  guestLoad,
  progress: (report) => server.tell('progress', report),
  log: (line) => server.tell('log', line),
};
const uploads = startThread<UploadMethods>(
  new URL('./upload-thread.ts', import.meta.url),
  { settings } satisfies Omit<UploadThreadData, 'channel'>,
  16,
  ownerMethods,
);

function guestLoad(): GuestLoad {
  const uses = [...volumes.all()].map(([, use]) => use);
  const counters = [...uses, ...snapshotExports.values()].map((each) => each.counters);
  const staged = uses.map(({ volume }) => volume.stagedBytes);
  const { user, system } = process.threadCpuUsage();
  return {
    at: monotonicMilliseconds(),
    requests: counters.reduce((sum, each) => sum + answeredRequests(each), 0),
    activeMilliseconds: (user + system) / 1000,
    stagedShare: Math.max(0, ...staged) / settings.stagingLimitBytes,
  };
}

function serve(order: ServeOrder, socket: Socket): void {
  const { target } = order;
  switch (target.kind) {
    case 'volume': {
      const use = volumes.get(target.volumeId);
      // Detached while the handshake was on its way.
      if (use === undefined || !use.exported) {
        socket.destroy();
        return;
      }
      const connection = transmit(order, socket, use.volume, use.counters);
      use.connections.add(connection);
      connection
        .settled()
        .then(() => {
          use.connections.delete(connection);
          return volumes.closeIfIdle(target.volumeId);
        })
        // The disk refused its last sync. Uncaught it would end the worker, and with it what is known of that.
        .catch((error: Error) =>
          server.tell('log', {
            level: 'error',
            message: `${target.volumeId} was not closed cleanly: ${error.message}`,
          }),
        );
      return;
    }
    case 'snapshot': {
      const open = snapshotExports.get(target.root) ?? {
        target: new SnapshotExport(
          SnapshotSource.of(store, target.root, patience, dataKey(target.key)),
          target.sizeBytes,
        ),
        connections: 0,
        counters: newIoCounters(),
      };
      snapshotExports.set(target.root, open);
      open.connections += 1;
      void transmit(order, socket, open.target, open.counters)
        .settled()
        .then(() => {
          open.connections -= 1;
          if (open.connections === 0) snapshotExports.delete(target.root);
        });
      return;
    }
    default:
      target satisfies never;
  }
}

function transmit(
  order: ServeOrder,
  socket: Socket,
  target: OpenVolume,
  counters: VolumeUse['counters'],
): Transmission {
  const { structuredReplies, baseAllocation } = order;
  const readOnly = order.target.kind === 'snapshot';
  const connection = new Transmission(socket, target, { structuredReplies, baseAllocation, readOnly }, counters);
  connection.start(Buffer.from(order.reply), Buffer.from(order.rest));
  return connection;
}

function cutKey({ volumeId, boundary }: CutVolume): string {
  return `${volumeId} ${boundary}`;
}

function dataKey(bytes: Uint8Array | undefined): DataKey | undefined {
  return bytes === undefined ? undefined : new DataKey(bytes);
}

async function endConnections(use: VolumeUse | undefined): Promise<void> {
  const connections = [...(use?.connections ?? [])];
  for (const connection of connections) connection.end();
  await Promise.all(connections.map((connection) => connection.settled()));
}
