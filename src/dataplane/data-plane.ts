import type { Socket } from 'node:net';
import { addStoreFigures, noStoreFigures, type StoreFigures } from '../objects/measured-store.ts';
import type { Captured, CaptureProgress } from '../snapshots/capture.ts';
import type { Repacked } from '../snapshots/repack.ts';
import { ConcurrencyLimit } from '../types/concurrency-limit.ts';
import { withDeadline } from '../types/deadline.ts';
import type { SnapshotId, VolumeId } from '../types/ids.ts';
import type { CutVolume } from '../volumes/engine.ts';
import type {
  CaptureOrder,
  MadeCut,
  RecodeOrder,
  RepackOrder,
  ServeOrder,
  ServerMethods,
  VolumeActivity,
  VolumeOpening,
  VolumeOrder,
  WorkerMethods,
  WorkerSettings,
} from './messages.ts';
import { RpcPeer } from './rpc.ts';
import { askAll, forkWorker, introduce, processChannel, stopWorker, type WorkerSlot } from './worker-process.ts';

/** `silent`: the numbers of the workers that do not answer, of whose volumes nothing is known just now. */
export type Activity = { volumes: VolumeActivity[]; silent: number[] };

export type DataPlaneOptions = {
  settings: WorkerSettings;
  workers: number;
  /**
   * What the catalog knows of volumes, for a worker that opens them.
   * @param known of a moment ago: their keys are taken from there
   */
  openingsOf: (volumeIds: readonly VolumeId[], known?: readonly VolumeOpening[]) => Promise<VolumeOpening[]>;
  onProgress: (snapshotId: SnapshotId, progress: CaptureProgress) => void;
  /** A volume has given a cut up: its snapshot cannot be had any more. */
  onCutLost: (cut: CutVolume, reason: string) => void;
  /** A worker that died is there again, with its exports; what it was asked meanwhile has failed. */
  onWorkerBack: () => void;
  log: ServerMethods['log'];
};

/** For the operator: what became of cuts and workers since the server began. */
export type CutFigures = {
  /** How long writes were held, of the latest cuts; taken by whoever counts them. */
  holdSeconds: number[];
  failedCuts: number;
  workerRestarts: number;
};

const REMEMBERED_HOLDS = 1000;

export type Cut = { cuts: CutVolume[]; holdMilliseconds: number };

/** A set could not be cut: nothing was, and all volumes go on. */
export class CutFailedError extends Error {
  override name = 'CutFailedError';
}

/** The worker died under a call; it is being started again, and the call may be made again. */
export class WorkerDiedError extends Error {
  override name = 'WorkerDiedError';
}

const RESTART_PAUSE_MILLISECONDS = 200;
/** Twice as long after each start that came to nothing (no memory, a store's address that cannot be read), up to this. */
const LONGEST_RESTART_PAUSE_MILLISECONDS = 10_000;
/** Opening volumes and making files may take this many times the hold's deadline: no write waits for it. */
const PREPARATION_SHARE = 10;

/**
 * The processes that hold the volumes, seen from the server: the one port through which everything else reaches live
 * data. Each volume belongs to one worker; a worker that dies is started again, and its exports come back.
 */
export class DataPlane {
  readonly #options: DataPlaneOptions;
  readonly #workers: WorkerSlot[] = [];
  /** Of each worker, how often in a row it ended before it was up. */
  readonly #vainStarts: number[];
  readonly #owners = new Map<VolumeId, number>();
  readonly #exports = new Map<VolumeId, { sizeBytes: number }>();
  /** Cuts one after another: two sets may share a volume. A hold lasts milliseconds. */
  readonly #oneCut = new ConcurrencyLimit(1);
  /** Work that belongs to no volume goes round. */
  #nextWorker = 0;
  #nextToken = 1;
  #nextConnection = 1;
  /** As long as writes are held: ends when they go on. */
  #hold: Promise<void> | undefined;
  #stopping = false;
  readonly figures: CutFigures = { holdSeconds: [], failedCuts: 0, workerRestarts: 0 };

  constructor(options: DataPlaneOptions) {
    this.#options = options;
    this.#vainStarts = Array.from({ length: options.workers }, () => 0);
    for (let number = 0; number < options.workers; number += 1) this.#workers.push(this.#startWorker(number));
  }

  /** Resolves when all workers answer. */
  async ready(): Promise<void> {
    await Promise.all(this.#workers.map((worker) => worker.ready));
  }

  async create(volume: VolumeOrder): Promise<void> {
    await this.#of(volume.volumeId).call('createVolume', volume);
  }

  async remove(volumeId: VolumeId): Promise<void> {
    this.#exports.delete(volumeId);
    await this.#of(volumeId).call('removeVolume', { volumeId });
    this.#owners.delete(volumeId);
  }

  /** From here on NBD clients may connect to the volume. */
  async exportVolume(volumeId: VolumeId): Promise<void> {
    const opening = await this.#openingOf(volumeId);
    // As its owner has it: it may be growing just now.
    const sizeBytes = await this.#of(volumeId).call('exportVolume', opening);
    this.#exports.set(volumeId, { sizeBytes });
  }

  /** When it resolves no client is connected, nothing is under way, and all that was written is durable. */
  async endExport(volumeId: VolumeId): Promise<void> {
    if (!this.#exports.delete(volumeId)) return;
    await this.#of(volumeId).call('endExport', { volumeId });
  }

  exported(volumeId: VolumeId): { sizeBytes: number } | undefined {
    return this.#exports.get(volumeId);
  }

  exports(): VolumeId[] {
    return [...this.#exports.keys()];
  }

  /** Makes a volume larger, while clients are connected: they may use it at once, new ones see the new size. */
  async grow(volumeId: VolumeId, sizeBytes: number): Promise<void> {
    await this.#of(volumeId).call('growVolume', { opening: await this.#openingOf(volumeId), sizeBytes });
    if (this.#exports.has(volumeId)) this.#exports.set(volumeId, { sizeBytes });
  }

  async hydrate(volumeId: VolumeId): Promise<boolean> {
    return this.#of(volumeId).call('hydrate', await this.#openingOf(volumeId));
  }

  /** Hands a connection whose handshake is over to the worker that owns its export. */
  serve(target: ServeOrder['target'], accepted: Omit<ServeOrder, 'target' | 'connection'>, socket: Socket): void {
    const worker = target.kind === 'volume' ? this.#workers[this.#ownerOf(target.volumeId)] : this.#anyWorker();
    if (!worker.process.connected || worker.peer.ended) {
      socket.destroy();
      return;
    }
    const connection = this.#nextConnection++;
    worker.handingOver.set(connection, socket);
    // The worker says nothing yet, and so neither does the client: until this process has closed its copy of the
    // socket it may still read from it, and what it reads would be lost.
    worker.peer.tell('serve', { ...accepted, target, connection }, socket);
  }

  /**
   * Cuts all the volumes at one instant, or none. Each worker closes the gates of its volumes, so that new writes wait,
   * and tells the others; when it has heard from all of them it cuts, and opens its gates.
   *
   * So every gate is closed before the first cut is made, and is opened only after its own volume's: a write that is in
   * the cut of one volume has no cause that is missing from another's. Where a worker has let its writes go without a cut,
   * because others were late, there is no set: what the rest have cut is given up.
   * @param openings of the volumes, of a moment ago
   * @throws CutFailedError
   */
  cut(openings: readonly VolumeOpening[], deadlineMilliseconds: number): Promise<Cut> {
    return this.#oneCut.run(() => this.#cutNow(openings, deadlineMilliseconds));
  }

  /**
   * What workers must know of volumes, their keys too. To be asked before a cut takes its turn: a keeper of keys that does
   * not answer would keep all others waiting.
   * @throws KeyError, KeysUnavailableError
   */
  openingsOf(volumeIds: readonly VolumeId[]): Promise<VolumeOpening[]> {
    return this.#options.openingsOf(volumeIds);
  }

  /**
   * Resolves when no writes are held. What keeps this process busy for milliseconds waits for that, instead of having
   * workers wait for a processor.
   */
  async afterHold(): Promise<void> {
    while (this.#hold !== undefined) await this.#hold;
  }

  /** Ends a cut whose snapshot is stored (`completed`), or will never be. */
  async finishCut(cut: CutVolume, completed: boolean): Promise<void> {
    await this.#of(cut.volumeId).call('finishCut', { cut, completed });
  }

  /**
   * Nothing that is stored of the volume may be relied on any more; the catalog says so already (NO_BASE). Pending cuts are
   * lost, the next has everything.
   */
  async forgetHistory(volumeId: VolumeId, reason: string): Promise<void> {
    // Not between a cut's preparation and the cut: it takes the files that were prepared.
    const known = await this.#openingOf(volumeId);
    await this.#oneCut.run(async () => {
      const [opening] = await this.#options.openingsOf([volumeId], [known]);
      await this.#of(volumeId).call('forgetHistory', { opening, reason });
    });
  }

  /** After a start: takes up the volume's pending cuts. @returns those that cannot be had, and why */
  async resumeCuts(volumeId: VolumeId): Promise<{ boundary: number; reason: string }[]> {
    return this.#of(volumeId).call('resumeCuts', await this.#openingOf(volumeId));
  }

  /** Brings a cut into the object store. @throws WorkerDiedError; then it may be asked again */
  async capture(order: CaptureOrder): Promise<Captured> {
    const { volumeId } = order.cut;
    return this.#of(volumeId).call('capture', { ...order, opening: await this.#openingOf(volumeId) });
  }

  /** Stores a snapshot's bytes again, under another key or in another place. @throws WorkerDiedError; then it may be asked again */
  recode(order: RecodeOrder): Promise<Captured> {
    return this.#anyWorker().peer.call('recode', order);
  }

  /** A copy is no longer wanted: its `recode` fails soon, if it is under way. */
  cancelRecode(snapshotId: SnapshotId): void {
    for (const { peer } of this.#workers) peer.tell('cancelRecode', { snapshotId });
  }

  /** Empties packs that are mostly dead. @throws WorkerDiedError */
  repack(order: RepackOrder): Promise<Repacked> {
    return this.#anyWorker().peer.call('repack', order);
  }

  /** What the workers say of the volumes that they have open. */
  async activity(): Promise<Activity> {
    const { answers, silent } = await askAll(this.#workers, (worker) => worker.call('activity', {}));
    return { volumes: answers.flat(), silent };
  }

  /** What the workers have asked of the object store; undefined while one does not answer: sums must not go down. */
  async storeFigures(): Promise<StoreFigures | undefined> {
    const { answers, silent } = await askAll(this.#workers, (worker) => worker.call('storeFigures', {}));
    if (silent.length > 0) return undefined;
    const sum = noStoreFigures();
    for (const figures of answers) addStoreFigures(sum, figures);
    return sum;
  }

  async stop(): Promise<void> {
    this.#stopping = true;
    const log = (message: string): void => this.#options.log({ level: 'warn', message });
    await Promise.all(this.#workers.map((worker) => stopWorker(worker, log)));
  }

  get stopping(): boolean {
    return this.#stopping;
  }

  async #cutNow(known: readonly VolumeOpening[], deadlineMilliseconds: number): Promise<Cut> {
    // But for the keys they may say something else by now: the cut before this one may have been of the same volumes.
    const ids = known.map(({ volumeId }) => volumeId);
    const openings = await this.#options.openingsOf(ids, known);
    const byWorker = new Map<number, VolumeOpening[]>();
    for (const opening of openings) {
      const owner = this.#ownerOf(opening.volumeId);
      byWorker.set(owner, [...(byWorker.get(owner) ?? []), opening]);
    }
    const groups = [...byWorker].map(([number, volumes]) => ({
      worker: this.#workers[number].peer,
      others: [...byWorker.keys()].filter((other) => other !== number),
      volumes,
      volumeIds: volumes.map((volume) => volume.volumeId),
    }));
    const token = `cut-${this.#nextToken++}`;
    const hold = Promise.withResolvers<void>();
    const preparations = groups.map(({ worker, volumes }) => worker.call('prepareCut', { volumes }));
    try {
      await withDeadline(deadlineMilliseconds * PREPARATION_SHARE, 'the preparation', Promise.all(preparations));
      this.#hold = hold.promise;
      const cutting = groups.map(({ worker, volumeIds, others }) =>
        worker.call('cut', { token, volumeIds, others, deadlineMilliseconds }),
      );
      const made = await allOrNone(cutting, deadlineMilliseconds, (cut) => this.finishCut(cut, false));
      const cuts = made.flatMap((part) => part.cuts);
      const firstHeld = Math.min(...made.map(({ heldAt }) => heldAt));
      const holdMilliseconds = Math.max(...made.map(({ freeAt }) => freeAt)) - firstHeld;
      if (this.figures.holdSeconds.length < REMEMBERED_HOLDS) this.figures.holdSeconds.push(holdMilliseconds / 1000);
      return { cuts, holdMilliseconds };
    } catch (error) {
      // A worker that is late gets this after what it is late with, and lets its writes go.
      this.figures.failedCuts += 1;
      for (const { worker } of groups) worker.tell('release', { token });
      throw new CutFailedError(`the volumes could not be cut at one instant: ${(error as Error).message}`);
    } finally {
      this.#hold = undefined;
      hold.resolve();
      for (const [index, { worker, volumeIds }] of groups.entries()) {
        preparations[index].then(
          () => worker.tell('endPreparation', { volumeIds }),
          () => undefined,
        );
      }
    }
  }

  async #openingOf(volumeId: VolumeId): Promise<VolumeOpening> {
    const [opening] = await this.#options.openingsOf([volumeId]);
    return opening;
  }

  #anyWorker(): WorkerSlot {
    this.#nextWorker = (this.#nextWorker + 1) % this.#workers.length;
    return this.#workers[this.#nextWorker];
  }

  #of(volumeId: VolumeId): RpcPeer<WorkerMethods> {
    return this.#workers[this.#ownerOf(volumeId)].peer;
  }

  #ownerOf(volumeId: VolumeId): number {
    let owner = this.#owners.get(volumeId);
    if (owner === undefined) {
      const load = this.#workers.map(() => 0);
      for (const number of this.#owners.values()) load[number] += 1;
      owner = load.indexOf(Math.min(...load));
      this.#owners.set(volumeId, owner);
    }
    return owner;
  }

  #startWorker(number: number): WorkerSlot {
    const child = forkWorker(this.#options.settings);
    const handingOver = new Map<number, Socket>();
    const peer = new RpcPeer<WorkerMethods>(processChannel(child), {
      ...this.#serverMethods(),
      taken: ({ connection }: { connection: number }) => {
        handingOver.get(connection)?.destroy();
        handingOver.delete(connection);
        peer.tell('begin', { connection });
      },
    });
    // The first answer says that the worker is up: messages sent before wait in its pipe.
    const ready = peer.call('activity', {}).then(
      () => {
        this.#vainStarts[number] = 0;
      },
      (error: Error) => {
        this.#vainStarts[number] += 1;
        throw error;
      },
    );
    ready.catch(() => undefined);
    const ended = (cause: string): void => {
      for (const socket of handingOver.values()) socket.destroy();
      peer.end(new WorkerDiedError(`data-plane worker ${number} ended (${cause})`));
      if (!this.#stopping) void this.#restart(number, cause);
    };
    child.on('error', (error) => {
      // Not begun at all, for want of memory, say: then there is no exit either. (Other errors are of single messages.)
      if (child.pid === undefined) ended(error.message);
    });
    child.once('exit', (code, signal) => ended(signal ?? `exit code ${code}`));
    const slot = { process: child, peer, ready, handingOver };
    try {
      introduce(number, slot, this.#workers);
    } catch (error) {
      // Without it there could be no cut; it is started again.
      this.#options.log({ level: 'error', message: `data-plane worker ${number}: ${(error as Error).message}` });
      child.kill('SIGKILL');
    }
    return slot;
  }

  async #restart(number: number, cause: string): Promise<void> {
    this.#options.log({ level: 'error', message: `data-plane worker ${number} ended (${cause}); starting it again` });
    // By now it is known whether it had been up.
    await new Promise(setImmediate);
    const pause = RESTART_PAUSE_MILLISECONDS * 2 ** this.#vainStarts[number];
    await new Promise((resolve) => setTimeout(resolve, Math.min(pause, LONGEST_RESTART_PAUSE_MILLISECONDS)));
    if (this.#stopping) return;
    this.figures.workerRestarts += 1;
    this.#workers[number] = this.#startWorker(number);
    const own = [...this.#exports.keys()].filter((volumeId) => this.#owners.get(volumeId) === number);
    // All at once: one that waits for its key keeps none of the others from its guests.
    await Promise.all(own.map((volumeId) => this.#exportAgain(volumeId)));
    this.#options.onWorkerBack();
  }

  async #exportAgain(volumeId: VolumeId): Promise<void> {
    try {
      const opening = await this.#openingOf(volumeId);
      // Detached meanwhile, or removed: opened now, it would stay open.
      if (this.#exports.has(volumeId)) await this.#of(volumeId).call('exportVolume', opening);
    } catch (error) {
      this.#exports.delete(volumeId);
      const message = `${volumeId} could not be exported again: ${(error as Error).message}`;
      this.#options.log({ level: 'error', message });
    }
  }

  #serverMethods(): Omit<ServerMethods, 'taken'> {
    return {
      progress: ({ snapshotId, progress }) => this.#options.onProgress(snapshotId, progress),
      cutLost: ({ cut, reason }) => this.#options.onCutLost(cut, reason),
      log: (line) => this.#options.log(line),
    };
  }
}

/** If any worker's part fails, or is not there in time, what the others have cut is given up, even what comes later. */
async function allOrNone(
  cutting: readonly Promise<MadeCut>[],
  deadlineMilliseconds: number,
  giveUp: (cut: CutVolume) => Promise<void>,
): Promise<MadeCut[]> {
  try {
    return await withDeadline(deadlineMilliseconds, 'the hold', Promise.all(cutting));
  } catch (error) {
    for (const part of cutting) {
      part.then(
        ({ cuts }) => Promise.allSettled(cuts.map(giveUp)),
        () => undefined,
      );
    }
    throw error;
  }
}
