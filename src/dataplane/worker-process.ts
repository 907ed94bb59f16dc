import { type ChildProcess, fork } from 'node:child_process';
import { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { withDeadline } from '../types/deadline.ts';
import type { WorkerMethods, WorkerSettings } from './messages.ts';
import type { Channel, RpcMessage, RpcPeer } from './rpc.ts';
import { socketPair } from './socket-channel.ts';
import { ONE_HELPER_THREAD } from './thread-priorities.ts';

/** So long a worker has to say how it is. */
const ANSWER_MILLISECONDS = 2000;
/** A worker's thread may be held by its disk; for longer than this none is waited for at the end. */
const SILENCE_MILLISECONDS = 30_000;
const LOOK_MILLISECONDS = 1_000;
const END_MILLISECONDS = 5_000;

export type WorkerSlot = {
  process: ChildProcess;
  peer: RpcPeer<WorkerMethods>;
  ready: Promise<void>;
  /** Connections on their way to the worker: should it die, their clients must not wait for ever. */
  handingOver: Map<number, Socket>;
};

/** Begins the process of a data-plane worker. */
export function forkWorker(settings: WorkerSettings): ChildProcess {
  return fork(new URL('./worker.ts', import.meta.url), {
    serialization: 'advanced',
    execArgv: [...process.execArgv, ONE_HELPER_THREAD],
    env: {
      ...process.env,
      CLEANCUT_WORKER: JSON.stringify(settings),
      UV_THREADPOOL_SIZE: '8',
      MALLOC_ARENA_MAX: '2',
      // Fixed: left to itself, glibc takes ever larger buffers into its heap, where one that lives keeps the rest. But what is
      // needed anew for each block (half a MiB, or one) must not come from the kernel each time, and go back: by way of
      // node:zlib, a block of text was compressed in 2.7 ms then, and in 2.0 with these.
      MALLOC_MMAP_THRESHOLD_: String(2 * 1024 * 1024),
      MALLOC_TRIM_THRESHOLD_: String(16 * 1024 * 1024),
    },
  });
}

/** The pipe to a forked process. What is sent to one that has ended goes nowhere; its end is heard of elsewhere. */
export function processChannel(child: ChildProcess): Channel {
  return {
    post: (messages, socket) => {
      child.send([...messages], socket, { keepOpen: true }, () => undefined);
    },
    onMessages: (receive) => child.on('message', (messages) => receive(messages as RpcMessage[])),
  };
}

/** Asks all; who asks how things are must have an answer above all when one gives none. @returns `silent`: their numbers */
export async function askAll<Answer>(
  workers: readonly WorkerSlot[],
  ask: (worker: RpcPeer<WorkerMethods>) => Promise<Answer>,
): Promise<{ answers: Answer[]; silent: number[] }> {
  const answers: Answer[] = [];
  const silent: number[] = [];
  const askOne = async ({ peer }: WorkerSlot, number: number): Promise<void> => {
    await withDeadline(ANSWER_MILLISECONDS, 'its answer', ask(peer)).then(
      (answer) => answers.push(answer),
      () => silent.push(number),
    );
  };
  await Promise.all(workers.map(askOne));
  return { answers, silent };
}

/**
 * Stops a worker: to sync its volumes may take minutes. One that cannot stop as it should, or is not heard of any more, is
 * killed, which is safe at any time (and no other signal ends it).
 */
export async function stopWorker(
  { process, peer }: WorkerSlot,
  log: (message: string) => void,
  silenceMilliseconds = SILENCE_MILLISECONDS,
): Promise<void> {
  // Between its death and the start of the next one.
  const hasEnded = (): boolean => process.exitCode !== null || process.signalCode !== null;
  if (hasEnded()) return;
  const ended = new Promise<void>((resolve) => process.once('exit', () => resolve()));
  const endedSoon = (): Promise<void> => Promise.race([ended, sleep(END_MILLISECONDS, undefined, { ref: false })]);
  const answered = new AbortController();
  await Promise.race([peer.call('stop', {}), silenceOf(peer, silenceMilliseconds, answered.signal)])
    .then(endedSoon)
    .catch((error: Error) => log(`a data-plane worker is killed, not stopped: ${error.message}`))
    .finally(() => answered.abort());
  if (hasEnded()) return;
  process.kill('SIGKILL');
  await endedSoon();
  // One that sleeps in the kernel, in a disk that does not answer, ends when that does.
  if (!hasEnded()) log(`a data-plane worker (${process.pid}) does not end; it is left behind`);
}

/** Asks a worker again and again. @throws when it has not answered for so long */
async function silenceOf(peer: RpcPeer<WorkerMethods>, milliseconds: number, signal: AbortSignal): Promise<never> {
  let heardAt = performance.now();
  const heard = (): void => {
    heardAt = performance.now();
  };
  while (performance.now() - heardAt < milliseconds) {
    peer.call('activity', {}).then(heard, () => undefined);
    await sleep(Math.min(LOOK_MILLISECONDS, milliseconds), undefined, { signal });
  }
  throw new Error(`nothing was heard of it for ${milliseconds / 1000} s`);
}

/**
 * Gives a worker a connection with each of the others. One that ends before it has taken its socket is replaced, and its
 * successor is introduced anew.
 * @param workers by their numbers; a place with this worker's number is passed over
 * @throws where the process may open no more files
 */
export function introduce(number: number, worker: WorkerSlot, workers: readonly WorkerSlot[]): void {
  for (const [other, slot] of workers.entries()) {
    if (other === number) continue;
    const [ownEnd, otherEnd] = socketPair();
    hand(worker, other, ownEnd);
    hand(slot, number, otherEnd);
  }
}

function hand({ peer }: WorkerSlot, partner: number, fd: number): void {
  // Nothing may be read from it here: that would be missing there.
  const socket = new Socket({ fd, readable: false, writable: true });
  peer
    .call('meet', { worker: partner }, socket)
    .catch(() => undefined)
    .finally(() => socket.destroy());
}
