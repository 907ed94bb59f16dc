import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { Cleanup } from './cleanup.ts';

/** A directory of the test's own, gone when the test ends. */
export function temporaryDirectory(test: Cleanup): string {
  const directory = mkdtempSync(path.join(tmpdir(), 'cleancut-test-'));
  // A server that has just begun may be making files still, and one that was killed may have workers that end now.
  test.after(() => rmSync(directory, { recursive: true, force: true, maxRetries: 10, retryDelay: 50 }));
  return directory;
}
