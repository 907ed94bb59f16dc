import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { encodeBlock } from '../../src/snapshots/block-encoding.ts';
import { type Captured, capture } from '../../src/snapshots/capture.ts';
import type { CutReader } from '../../src/snapshots/cut-reader.ts';
import { Manifest } from '../../src/snapshots/manifest.ts';
import { NO_JOURNAL } from '../../src/snapshots/upload-journal.ts';
import { BLOCK_BYTES } from '../../src/types/units.ts';
import { contents, cutOf, NO_PATIENCE } from '../support/captures.ts';
import { MemoryStore } from '../support/memory-store.ts';

/** Five batches. */
const BLOCKS = new Map(Array.from({ length: 40 }, (_, block) => [block, randomBytes(BLOCK_BYTES)]));

/** A cut whose owner takes a while to say what is local, with the number of reads that were begun, and that have ended. */
function slowCut(): { cut: CutReader; begun: number; ended: number } {
  const cut = cutOf(BLOCKS, [...BLOCKS.keys()]);
  const reads = {
    begun: 0,
    ended: 0,
    cut: {
      ...cut,
      async read(pieces, target) {
        reads.begun += 1;
        const local = await cut.read(pieces, target);
        await sleep(20);
        reads.ended += 1;
        return local;
      },
    } satisfies CutReader,
  };
  return reads;
}

function run(store: MemoryStore, cut: CutReader, step: (what: 'rest' | 'encode') => void): Promise<Captured> {
  return capture({
    cut,
    blocks: 1_000_000,
    store,
    base: new Manifest(store, undefined, NO_PATIENCE, undefined),
    journal: NO_JOURNAL,
    patience: NO_PATIENCE,
    onProgress: () => undefined,
    signal: new AbortController().signal,
    rest: async () => step('rest'),
    encode(block) {
      step('encode');
      return encodeBlock(block);
    },
  });
}

test('each batch is asked about before the one before it is worked on, and a rest is before each, of nothing', async () => {
  const store = new MemoryStore();
  const reads = slowCut();
  const steps: string[] = [];
  const { root } = await run(store, reads.cut, (what) => {
    const step = `${what} with ${reads.begun} begun`;
    if (steps.at(-1) !== step) steps.push(step);
  });
  assert.deepEqual(steps, [
    'rest with 0 begun',
    'rest with 1 begun',
    'encode with 2 begun',
    'rest with 2 begun',
    'encode with 3 begun',
    'rest with 3 begun',
    'encode with 4 begun',
    'rest with 4 begun',
    'encode with 5 begun',
  ]);
  const found = await contents(store, root);
  assert.equal(found.size, BLOCKS.size);
  for (const [block, bytes] of BLOCKS) assert.ok(found.get(block)?.equals(bytes), `block ${block}`);
});

for (const what of ['rest', 'encode'] as const) {
  test(`where a capture fails in mid-work (${what}), no read outlives it: its files and its buffers are others' next`, async () => {
    const reads = slowCut();
    let number = 0;
    const failing = run(new MemoryStore(), reads.cut, (step) => {
      if (step === what && ++number === 3) throw new Error('it was called off');
    });
    await assert.rejects(failing, /called off/);
    assert.ok(reads.begun >= 2, 'nothing was under way');
    assert.equal(reads.ended, reads.begun);
  });
}
