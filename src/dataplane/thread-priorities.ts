/** Which of a worker's threads go before which. (On Linux a priority is a thread's, not a process's.) */
import { readdirSync, readFileSync } from 'node:fs';
import os from 'node:os';

/** For the command line of a process: one thread for V8's own work, where it would begin four on any machine. */
export const ONE_HELPER_THREAD = '--v8-pool-size=1';

const V8_THREAD_NAME = 'V8Worker';
/** Two steps: with one, writes still waited twice as long; with more, reads did. */
const GUESTS_PRIORITY = -2;

/**
 * Has the threads on which V8 compiles and marks heaps give way to the one that serves guests: a cut runs code that has
 * not run for long, and what is compiled for it is not urgent. (By their names: Node has no other way to them.)
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

/**
 * Lets the thread that calls, on which all of a worker's guests wait, run a little before what is as urgent otherwise: the
 * guests' own programs, if they are on the same machine, and the kernel's writing back of what they wrote. Threads that it
 * begins from here on take the priority over.
 */
export function raiseGuestsThread(): void {
  try {
    os.setPriority(GUESTS_PRIORITY);
  } catch {
    // That is root's to allow (CAP_SYS_NICE, RLIMIT_NICE); without, it is one among equals.
  }
}
