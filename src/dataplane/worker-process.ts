import { type ChildProcess, fork } from 'node:child_process';
import type { WorkerSettings } from './messages.ts';
import type { Channel, RpcMessage } from './rpc.ts';
import { ONE_HELPER_THREAD } from './thread-priorities.ts';

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
      // Fixed: left to itself, glibc takes ever larger buffers into its heap, where one that lives keeps the rest.
      MALLOC_MMAP_THRESHOLD_: String(1024 * 1024),
      MALLOC_TRIM_THRESHOLD_: String(8 * 1024 * 1024),
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
