import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { type TestContext, test } from 'node:test';
import { BlockUploads } from '../../src/api/ebs/block-uploads.ts';
import { readAfterHolds } from '../../src/api/ebs/ebs-operation.ts';
import { openCatalog } from '../../src/catalog/catalog.ts';
import { ResourceLocks } from '../../src/lifecycle/resource-locks.ts';
import { decodeRecord, type Encoding, type PackId, sha256 } from '../../src/snapshots/block-encoding.ts';
import { packKey } from '../../src/snapshots/pack.ts';
import type { Sha256 } from '../../src/types/units.ts';
import { insertSnapshot } from '../support/catalog-rows.ts';
import { MemoryStore } from '../support/memory-store.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';

const BLOCK = 524_288;
const TEXT = Buffer.from('a text that is easily made smaller; '.repeat(BLOCK / 32)).subarray(0, BLOCK);

async function world(t: TestContext) {
  const catalog = await openCatalog(`${temporaryDirectory(t)}/catalog.sqlite`);
  t.after(() => catalog.destroy());
  const store = new MemoryStore();
  const { snapshot_id: id } = await insertSnapshot(catalog, {});
  await catalog
    .insertInto('direct_uploads')
    .values({
      snapshot_id: id,
      parent_snapshot_id: null,
      parent_root: null,
      timeout_minutes: 60,
      active_at: new Date(0).toISOString(),
      client_token: null,
      client_token_request: '',
    })
    .execute();
  const holds = { now: Promise.resolve() };
  const dataPlane = { afterHold: () => holds.now };
  const locks = new ResourceLocks();
  const uploads = new BlockUploads({ catalog, store, now: () => new Date(1), lifecycle: { locks }, dataPlane });
  const put = (index: number, bytes: Buffer) => uploads.store(id, index, bytes, sha256(bytes), undefined);
  const rows = () => catalog.selectFrom('direct_blocks').selectAll().orderBy('block_index').execute();
  return { catalog, store, id, put, rows, holds, dataPlane };
}

/** Lets everything go on that is not waiting for the test. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 50; turn += 1) await new Promise((resolve) => setTimeout(resolve, 1));
}

test('blocks that come while others are stored share an object, and each is read back', async (t) => {
  const { catalog, store, id, put, rows } = await world(t);
  const blocks = [randomBytes(BLOCK), randomBytes(BLOCK), TEXT, Buffer.alloc(BLOCK), randomBytes(BLOCK), TEXT];
  const first = Promise.withResolvers<void>();
  store.beforeRequest = () => (store.objects.size === 0 ? first.promise : undefined);
  const storing = blocks.slice(0, 1).map((bytes, index) => put(index, bytes));
  await settle();
  storing.push(...blocks.slice(1, 3).map((bytes, index) => put(index + 1, bytes)));
  await settle();
  storing.push(...blocks.slice(3).map((bytes, index) => put(index + 3, bytes)));
  // The same block twice at once: the one that came last counts.
  const again = randomBytes(BLOCK);
  storing.push(put(1, again));
  await settle();
  assert.deepEqual(await rows(), [], 'what is not stored yet is not named');
  first.resolve();
  await Promise.all(storing);
  assert.equal(store.objects.size, 2);
  const found = await rows();
  assert.deepEqual(
    found.map((row) => row.block_index),
    [0, 1, 2, 3, 4, 5],
  );
  for (const [index, row] of found.entries()) {
    const expected = index === 1 ? again : blocks[index];
    assert.equal(row.sha256, createHash('sha256').update(expected).digest('hex'));
    if (row.pack === null) {
      assert.equal(index, 3, 'nothing is stored of zeroes alone');
      continue;
    }
    const location = {
      pack: row.pack as PackId,
      offset: row.pack_offset,
      length: row.stored_length,
      encoding: row.encoding as Encoding,
      sha256: row.block_hash as Sha256,
    };
    const record = await store.getRange(packKey(location.pack), location.offset, location.length);
    const decoded = await decodeRecord(record, location, BLOCK, undefined, `block ${index}`);
    assert.ok(decoded.equals(expected), `block ${index}`);
  }
  const upload = await catalog.selectFrom('direct_uploads').selectAll().executeTakeFirstOrThrow();
  assert.deepEqual([upload.snapshot_id, upload.active_at], [id, new Date(1).toISOString()]);
});

test('a block that cannot be stored does not fail those that came with it', async (t) => {
  const { store, put, rows } = await world(t);
  const bad = randomBytes(BLOCK);
  store.beforeRequest = (_, __, bytes) => {
    if (bytes?.includes(bad.subarray(1000, 1100))) throw new Error('no');
  };
  const outcomes = await Promise.allSettled([put(0, randomBytes(BLOCK)), put(1, bad), put(2, TEXT)]);
  assert.deepEqual(
    outcomes.map(({ status }) => status),
    ['fulfilled', 'rejected', 'fulfilled'],
  );
  assert.deepEqual(
    (await rows()).map((row) => row.block_index),
    [0, 2],
  );
});

test('what is stored after the snapshot was completed is refused, and named nowhere', async (t) => {
  const { catalog, store, put, rows } = await world(t);
  const stored = Promise.withResolvers<void>();
  store.beforeRequest = () => stored.promise;
  const storing = [put(0, randomBytes(BLOCK)), put(1, TEXT)];
  await settle();
  await catalog.updateTable('snapshots').set({ state: 'completed' }).execute();
  stored.resolve();
  for (const one of storing) await assert.rejects(one, { code: 'ValidationException', reason: 'INVALID_SNAPSHOT_ID' });
  assert.deepEqual(await rows(), []);
});

test('while writes are held for a cut, blocks are neither packed, nor named, nor decoded', async (t) => {
  const { store, put, rows, holds, dataPlane } = await world(t);
  const hold = Promise.withResolvers<void>();
  holds.now = hold.promise;
  const storing = put(0, TEXT);
  await settle();
  assert.equal(store.objects.size, 0);
  // One that begins while the object is on its way.
  const next = Promise.withResolvers<void>();
  store.beforeRequest = () => {
    holds.now = next.promise;
  };
  hold.resolve();
  await settle();
  assert.equal(store.objects.size, 1);
  assert.deepEqual(await rows(), []);
  const [key] = store.objects.keys();
  let come = false;
  store.beforeRequest = () => undefined;
  const reading = readAfterHolds(store, dataPlane)
    .getRange(key, 0, 8)
    .then((bytes) => {
      come = true;
      return bytes;
    });
  await settle();
  assert.ok(!come);
  next.resolve();
  await storing;
  assert.equal((await rows()).length, 1);
  assert.equal((await reading).toString('latin1', 0, 6), 'CCPACK');
});
