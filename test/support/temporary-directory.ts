import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { Cleanup } from './cleanup.ts';

/** A directory of the test's own, gone when the test ends. */
export function temporaryDirectory(test: Cleanup): string {
  const directory = mkdtempSync(path.join(tmpdir(), 'cleancut-test-'));
  test.after(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}
