import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { Cleanup } from './cleanup.ts';

const made = new Set<string>();
// A test's hooks run in their order: its servers, which began later, are killed after their directories were removed, and may
// have made them anew.
process.once('exit', () => {
  for (const directory of made) remove(directory);
});

/** A directory of the test's own, gone when the test ends. */
export function temporaryDirectory(test: Cleanup): string {
  const directory = mkdtempSync(path.join(tmpdir(), 'cleancut-test-'));
  made.add(directory);
  test.after(() => remove(directory));
  return directory;
}

/** A server that has just begun may be making files still, and one that was killed may have workers that end now. */
function remove(directory: string): void {
  rmSync(directory, { recursive: true, force: true, maxRetries: 10, retryDelay: 50 });
}
