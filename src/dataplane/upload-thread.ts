/** The thread of a data-plane worker that brings cuts into the object store. */
import { parentPort, workerData } from 'node:worker_threads';
import { openObjectStore } from '../objects/open-store.ts';
import { realPatience } from '../objects/patience.ts';
import { type Captured, capture } from '../snapshots/capture.ts';
import { Manifest } from '../snapshots/manifest.ts';
import { FileJournal } from '../snapshots/upload-journal.ts';
import { asEpoch, blockCount } from '../types/units.ts';
import { CutFiles } from '../volumes/cut-files.ts';
import { NodeDisk } from '../volumes/node-disk.ts';
import { journalPath } from './journal-path.ts';
import type { CaptureOrder, OwnerMethods, UploadMethods, WorkerSettings } from './messages.ts';
import { RpcPeer } from './rpc.ts';

const CHANGED_BLOCKS_AT_ONCE = 65_536;
const PROGRESS_MILLISECONDS = 200;

if (parentPort === null) throw new Error('this is a worker thread of the data plane');
const port = parentPort;
const settings = workerData as WorkerSettings;
const store = await openObjectStore(settings.objectStore);
const disk = new NodeDisk();
const running = new Map<string, { abort: AbortController; ended: Promise<unknown> }>();

const methods: UploadMethods = {
  async capture(order) {
    const abort = new AbortController();
    const work = captureCut(order, abort.signal);
    const key = keyOf(order.cut);
    running.set(key, { abort, ended: work.catch(() => undefined) });
    try {
      return await work;
    } finally {
      running.delete(key);
    }
  },
  async cancel({ cut }) {
    const run = running.get(keyOf(cut));
    run?.abort.abort(new Error('the snapshot is no longer wanted'));
    await run?.ended;
  },
};
const owner = new RpcPeer<OwnerMethods>(
  {
    post: (message) => port.postMessage(message),
    onMessage: (receive) => port.on('message', receive),
  },
  methods,
);

async function captureCut(order: CaptureOrder & { directory: string }, signal: AbortSignal): Promise<Captured> {
  const { cut, base, sizeBytes, snapshotId } = order;
  const patience = realPatience(settings.uploadPatienceMilliseconds, (error, attempt) => {
    if (signal.aborted) throw signal.reason;
    owner.tell('log', {
      level: 'warn',
      message: `${snapshotId}: attempt ${attempt} failed, trying again: ${error.message}`,
    });
  });
  const files = new CutFiles(disk, order.directory, sizeBytes);
  const path = journalPath(order.directory, cut.boundary);
  const journal = new FileJournal(disk.open(path, disk.exists(path) ? 'read-write' : 'create'));
  let reportedAt = 0;
  try {
    return await capture({
      cut: {
        changed: (from) =>
          owner.call('changedBlocks', { cut, since: asEpoch(base.boundary), from, most: CHANGED_BLOCKS_AT_ONCE }),
        read: (blocks, target) =>
          files.read(blocks, target, (asked) => owner.call('blocksAsOfCut', { cut, blocks: asked })),
        captured: (blocks) => owner.tell('captured', { cut, blocks }),
      },
      blocks: blockCount(sizeBytes),
      store,
      base: new Manifest(store, base.root, patience),
      journal,
      patience,
      onProgress: (progress) => {
        const now = performance.now();
        if (now - reportedAt < PROGRESS_MILLISECONDS) return;
        reportedAt = now;
        owner.tell('progress', { snapshotId, progress });
      },
      signal,
    });
  } finally {
    files.close();
    journal.close();
  }
}

function keyOf(cut: { volumeId: string; boundary: number }): string {
  return `${cut.volumeId} ${cut.boundary}`;
}
