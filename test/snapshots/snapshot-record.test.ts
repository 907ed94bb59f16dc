import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  listSnapshotRecords,
  putSnapshotRecord,
  recordKey,
  type SnapshotRecord,
} from '../../src/snapshots/snapshot-record.ts';
import { knownId, newId, parseAccountId } from '../../src/types/ids.ts';
import type { Sha256 } from '../../src/types/units.ts';
import { MemoryStore } from '../support/memory-store.ts';

test('a record with an id that is none, or under another one’s name, is told with the reason, and keeps none of the others', async () => {
  const store = new MemoryStore();
  const [good, bad, ownerless, copied] = Array.from({ length: 4 }, () => newId('snap'));
  const record: SnapshotRecord = {
    format: 1,
    snapshotId: good,
    setId: newId('set'),
    setSnapshotIds: [good],
    ownerId: parseAccountId('000000000001') ?? assert.fail(),
    region: 'us-east-1',
    sharedWith: [],
    instanceId: null,
    volumeId: newId('vol'),
    parentSnapshotId: null,
    volumeSizeGiB: 1,
    volumeType: 'gp3',
    deviceName: null,
    isRoot: false,
    description: '',
    tags: [],
    startTime: '2026-01-01T00:00:00.000Z',
    completionTime: '2026-01-01T00:00:01.000Z',
    root: 'a'.repeat(64) as Sha256,
    dataBlocks: 1,
  };
  await putSnapshotRecord(store, record);
  const put = (snapshotId: string, changes: object): Promise<void> =>
    store.put(recordKey(snapshotId), [Buffer.from(JSON.stringify({ ...record, snapshotId, ...changes }))]);
  await put(bad, { volumeId: "vol-'; drop table volumes" });
  await put(ownerless, { ownerId: 'nobody' });
  await put(copied, { snapshotId: good });
  const found = new Map<string, string>();
  for await (const each of listSnapshotRecords(store)) {
    found.set(each.key, each.record === undefined ? each.why : each.record.snapshotId);
  }
  assert.equal(found.get(recordKey(good)), knownId('snap', good));
  assert.match(found.get(recordKey(bad)) ?? '', /Not an id that begins vol-/);
  assert.match(found.get(recordKey(ownerless)) ?? '', /Not an account id of twelve digits/);
  assert.match(found.get(recordKey(copied)) ?? '', new RegExp(`is the record of ${good}$`));
  assert.equal(found.size, 4);
});
