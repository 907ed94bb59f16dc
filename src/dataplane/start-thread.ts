import { Worker } from 'node:worker_threads';
import { type Methods, RpcPeer } from './rpc.ts';
import { socketPair, threadChannel } from './socket-channel.ts';

/**
 * Begins a thread of this worker, and speaks with it. Without it the worker is half dead: when it fails the worker ends
 * whole, and is started again.
 * @param data what the thread finds as its workerData, with its end of the channel
 * @param youngMiB the most that V8 takes for objects that have just come into being: left to itself, tens of MiB
 * @param local what the thread may call
 */
export function startThread<Remote extends Methods>(
  program: URL,
  data: object,
  youngMiB: number,
  local: Methods,
): RpcPeer<Remote> {
  const [ownEnd, threadEnd] = socketPair();
  const thread = new Worker(program, {
    workerData: { ...data, channel: threadEnd },
    resourceLimits: { maxYoungGenerationSizeMb: youngMiB },
  });
  thread.on('error', (error) => {
    throw error;
  });
  return new RpcPeer<Remote>(threadChannel(ownEnd), local);
}
