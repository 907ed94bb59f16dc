/** Which of a worker's threads go before which. (On Linux a priority is a thread's, not a process's.) */
import { readdirSync, readFileSync } from 'node:fs';
import os from 'node:os';
import koffi from 'koffi';

/** For the command line of a process: one thread for V8's own work, where it would begin four on any machine. */
export const ONE_HELPER_THREAD = '--v8-pool-size=1';

const V8_THREAD_NAME = 'V8Worker';
/** Two steps: with one, writes still waited twice as long; with more, reads did. */
const GUESTS_PRIORITY = -2;
/** Less than what a thread has that does not ask (0.7 ms or more): Linux 6.12 and later then let it go first. */
const GUESTS_SLICE_NANOSECONDS = 200_000n;

/** sched_setattr(2): another number on each kind of processor; the C library of Debian 12 has no function for it. */
const SET_SCHEDULING = new Map<string, number>([
  ['x64', 314],
  ['arm64', 274],
]).get(process.arch);
const SCHEDULING_BYTES = 48;
/** What a thread begins has neither its slice nor its priority. */
const RESET_ON_FORK = 1n;

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
 * guests' own programs, if they are on the same machine, and the kernel's writing back of what they wrote. And lets it
 * take the processor from who has it for a longer time than it wants it for, at once when it has something to do.
 */
export function raiseGuestsThread(): void {
  try {
    os.setPriority(GUESTS_PRIORITY);
  } catch {
    // That is root's to allow (CAP_SYS_NICE, RLIMIT_NICE); without, it is one among equals.
  }
  if (SET_SCHEDULING === undefined) return;
  // struct sched_attr: size u32, policy u32 (0, the usual one), flags u64, nice s32, priority u32, runtime u64 …
  const attributes = Buffer.alloc(SCHEDULING_BYTES);
  attributes.writeUInt32LE(SCHEDULING_BYTES, 0);
  attributes.writeBigUInt64LE(RESET_ON_FORK, 8);
  attributes.writeInt32LE(os.getPriority(), 16);
  attributes.writeBigUInt64LE(GUESTS_SLICE_NANOSECONDS, 24);
  // Anyone may; an older kernel takes no notice, and a container that forbids it has the slice that all have.
  koffi.load('libc.so.6').func('long syscall(long number, int thread, const uint8_t *attributes, uint32_t flags)')(
    SET_SCHEDULING,
    0,
    attributes,
    0,
  );
}
