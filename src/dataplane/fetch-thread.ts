/** The thread of a data-plane worker that reads the snapshots of volumes that are being restored. */
import os from 'node:os';
import { workerData } from 'node:worker_threads';
import { DataKey } from '../encryption/data-key.ts';
import { MeasuredStore } from '../objects/measured-store.ts';
import { openObjectStore } from '../objects/open-store.ts';
import { realPatience } from '../objects/patience.ts';
import { SnapshotSource } from '../snapshots/snapshot-source.ts';
import { BlockFetches } from './block-fetches.ts';
import type { FetchMethods, FetchThreadData } from './messages.ts';
import { RpcPeer } from './rpc.ts';
import { threadChannel } from './socket-channel.ts';

/** Then the hydration fails, and is tried again later. */
const PATIENCE_MILLISECONDS = 30_000;

const { settings, channel, fetchRoom } = workerData as FetchThreadData;
// Guests go before it, but not without end: at the lowest priority, beside guests who did what they could, 1 GiB took 57 to
// 100 s. (On Linux a priority is a thread's.)
os.setPriority(os.constants.priority.PRIORITY_BELOW_NORMAL);
// One attempt: the patience is ours.
const store = new MeasuredStore(await openObjectStore(settings.objectStore, { attempts: 1 }));
const fetches = new BlockFetches(fetchRoom);

const methods: FetchMethods = {
  beginFetch({ fetch, source: { root, key }, from }) {
    const patience = realPatience(PATIENCE_MILLISECONDS);
    fetches.begin(fetch, SnapshotSource.of(store, root, patience, key && new DataKey(key)), from);
  },
  nextBlocks: ({ fetch }) => fetches.next(fetch),
  writtenBlocks: ({ fetch, slots }) => fetches.written(fetch, slots),
  endFetch: ({ fetch }) => fetches.end(fetch),
  storeFigures: () => store.figures,
};
new RpcPeer(threadChannel(channel), methods);
