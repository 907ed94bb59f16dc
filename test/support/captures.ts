import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import type { DataKey } from '../../src/encryption/data-key.ts';
import { type Captured, capture } from '../../src/snapshots/capture.ts';
import type { Storing } from '../../src/snapshots/capture-whole.ts';
import type { CutReader } from '../../src/snapshots/cut-reader.ts';
import { Manifest } from '../../src/snapshots/manifest.ts';
import { SnapshotSource } from '../../src/snapshots/snapshot-source.ts';
import { NO_JOURNAL, type UploadJournal } from '../../src/snapshots/upload-journal.ts';
import { ALL_PAGES, type PageMask, runsOf } from '../../src/types/page-mask.ts';
import { asBlock, BLOCK_BYTES, PAGE_BYTES, type Sha256 } from '../../src/types/units.ts';
import type { MemoryStore } from './memory-store.ts';

export const NO_PATIENCE = { milliseconds: 0, now: () => 0, sleep: async () => undefined, random: () => 0 };

/** A cut whose blocks stand in a map; what is not there is zeroes. */
export function cutOf(
  blocks: ReadonlyMap<number, Buffer>,
  changed: readonly number[],
  compareAll = false,
  written: ReadonlyMap<number, PageMask> = new Map(),
): CutReader & { done: Set<number> } {
  const ascending = [...changed].sort((a, b) => a - b);
  const done = new Set<number>();
  return {
    done,
    written: async (asked) => asked.map((block) => written.get(block) ?? ALL_PAGES),
    changed: async (from) => {
      const rest = ascending.filter((block) => block >= from);
      return { blocks: rest.slice(0, 7), more: rest.length > 7, compareAll };
    },
    async read(asked, target) {
      let at = 0;
      for (const { block, pages } of asked) {
        for (const { page, count } of runsOf(pages)) {
          const length = count * PAGE_BYTES;
          const bytes = blocks.get(block);
          if (bytes === undefined) target.fill(0, at, at + length);
          else bytes.copy(target, at, page * PAGE_BYTES, page * PAGE_BYTES + length);
          at += length;
        }
      }
      return asked.map(() => true);
    },
    captured: (blocks) => {
      for (const block of blocks) done.add(block);
    },
  };
}

/** For captureWhole. */
export function storing(store: MemoryStore, key: DataKey | undefined): Storing {
  const { signal } = new AbortController();
  return { store, patience: NO_PATIENCE, key, onProgress: () => undefined, signal };
}

export function run(
  store: MemoryStore,
  cut: CutReader,
  base: Sha256 | undefined,
  journal: UploadJournal = NO_JOURNAL,
  key?: DataKey,
): Promise<Captured> {
  return capture({
    cut,
    blocks: 1_000_000,
    store,
    base: new Manifest(store, base, NO_PATIENCE, key),
    journal,
    patience: NO_PATIENCE,
    onProgress: () => undefined,
    signal: new AbortController().signal,
  });
}

export async function contents(store: MemoryStore, root: Sha256, key?: DataKey): Promise<Map<number, Buffer>> {
  const found = new Map<number, Buffer>();
  const source = SnapshotSource.of(store, root, NO_PATIENCE, key);
  for await (const { block, bytes } of source.blocks(asBlock(0))) found.set(block, Buffer.from(bytes));
  return found;
}

export function assertSame(
  found: ReadonlyMap<number, Buffer>,
  expected: ReadonlyMap<number, Buffer>,
  what: string,
): void {
  assert.deepEqual(
    [...found.keys()],
    [...expected.keys()].sort((a, b) => a - b),
    what,
  );
  for (const [block, bytes] of expected) assert.ok(found.get(block)?.equals(bytes), `${what}: block ${block}`);
}

export function someBlock(random: () => number): Buffer {
  const kind = random();
  if (kind < 0.4) return randomBytes(BLOCK_BYTES);
  return Buffer.alloc(BLOCK_BYTES, `text ${random()} `);
}
