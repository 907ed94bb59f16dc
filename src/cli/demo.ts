import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { SingleBar } from 'cli-progress';
import { type Narrator, runDemo } from '../demo/demo.ts';
import { interruptible } from './interruptible.ts';

/** Runs the demo in a directory of its own, which goes with it. */
export async function demo(): Promise<void> {
  const dataDir = mkdtempSync(path.join(tmpdir(), 'cleancut-demo-'));
  const narrator = terminalNarrator();
  await interruptible(async (signal) => {
    try {
      await runDemo(dataDir, narrator, signal);
    } finally {
      narrator.end();
      rmSync(dataDir, { recursive: true, force: true });
    }
  });
}

/** Lines on stdout; a bar, where someone looks, on stderr. */
function terminalNarrator(): Narrator & { end: () => void } {
  let bar: SingleBar | undefined;
  let shown = '';
  const end = (): void => {
    bar?.stop();
    bar = undefined;
    shown = '';
  };
  return {
    end,
    say(line) {
      end();
      process.stdout.write(`${line}\n`);
    },
    progress(what, share) {
      if (shown !== what) {
        end();
        shown = what;
        bar = new SingleBar({
          format: `  ${what} [{bar}] {percentage}%`,
          stream: process.stderr,
          clearOnComplete: true,
        });
        bar.start(100, 0);
      }
      bar?.update(Math.floor(share * 100));
    },
  };
}
