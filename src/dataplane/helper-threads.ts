import { readdirSync, readFileSync } from 'node:fs';
import os from 'node:os';

/** For the command line of a process: one thread for V8's own work, where it would begin four on any machine. */
export const ONE_HELPER_THREAD = '--v8-pool-size=1';

const V8_THREAD_NAME = 'V8Worker';

/**
 * Has the threads on which V8 compiles and marks heaps give way to the one that serves guests: a cut runs code that has
 * not run for long, and what is compiled for it is not urgent. (By their names: Node has no other way to them. On Linux a
 * priority is a thread's.)
 */
export function lowerHelperThreads(): void {
  try {
    for (const thread of readdirSync('/proc/self/task')) {
      const name = readFileSync(`/proc/self/task/${thread}/comm`, 'utf8').trim();
      if (name === V8_THREAD_NAME) os.setPriority(Number(thread), os.constants.priority.PRIORITY_BELOW_NORMAL);
    }
  } catch {
    // Without /proc they stay as they are.
  }
}
