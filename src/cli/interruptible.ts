const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/** A terminal and npm both pass Ctrl-C on: what comes so soon after the first signal is the same one. */
const ECHO_MILLISECONDS = 1000;

/**
 * Work that takes long, and that a signal (Ctrl-C, say) is to end in good order: it hears of the first one, undoes what
 * is half done, and then the process dies of that signal, as it would have at once. Who sends another does not wait.
 */
export async function interruptible<Answer>(work: (signal: AbortSignal) => Promise<Answer>): Promise<Answer> {
  const abort = new AbortController();
  let heard: { signal: NodeJS.Signals; at: number } | undefined;
  const hear = (signal: NodeJS.Signals): void => {
    const at = performance.now();
    if (heard === undefined) {
      heard = { signal, at };
      abort.abort(new Error(`ended by ${signal}`));
    } else if (at - heard.at > ECHO_MILLISECONDS) {
      process.off(signal, hear);
      process.kill(process.pid, signal);
    }
  };
  for (const each of SIGNALS) process.on(each, hear);
  try {
    return await work(abort.signal);
  } finally {
    for (const each of SIGNALS) process.off(each, hear);
    // Also where the work was done all the same, or failed of what the signal did to other processes.
    if (heard !== undefined) await dieOf(heard.signal);
  }
}

async function dieOf(signal: NodeJS.Signals): Promise<never> {
  process.kill(process.pid, signal);
  // It comes when the kernel likes.
  return new Promise(() => setInterval(() => undefined, 1000));
}
