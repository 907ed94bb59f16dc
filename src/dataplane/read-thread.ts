/** The thread of a data-plane worker that reads from a store in a network what guests wait for. */
import { workerData } from 'node:worker_threads';
import { MeasuredStore } from '../objects/measured-store.ts';
import { openObjectStore } from '../objects/open-store.ts';
import type { ReadMethods, ReadThreadData } from './messages.ts';
import { RpcPeer } from './rpc.ts';
import { SlotReads } from './slot-reads.ts';
import { threadChannel } from './socket-channel.ts';

const { settings, channel, readRoom } = workerData as ReadThreadData;
// One attempt: who waits for a read is patient for so long in all, also where the store says nothing.
const store = new MeasuredStore(await openObjectStore(settings.objectStore, { attempts: 1 }));
const reads = new SlotReads(store, readRoom);

const methods: ReadMethods = {
  read: (order) => reads.read(order),
  taken: ({ slot }) => reads.taken(slot),
  storeFigures: () => store.figures,
};
new RpcPeer(threadChannel(channel), methods);
