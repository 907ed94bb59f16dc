import assert from 'node:assert/strict';
import { test } from 'node:test';
import { openCatalog } from '../../src/catalog/catalog.ts';
import type { DataPlane } from '../../src/dataplane/data-plane.ts';
import type { DataKeys } from '../../src/keys/data-keys.ts';
import { HydrationRunner } from '../../src/lifecycle/hydration-runner.ts';
import type { VolumeId } from '../../src/types/ids.ts';
import { insertVolume } from '../support/catalog-rows.ts';
import { MemoryStore } from '../support/memory-store.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';

test('volumes of which something is lost, and which fail for ever, keep no other from its bytes', {
  timeout: 20_000,
}, async (t) => {
  const catalog = await openCatalog(`${temporaryDirectory(t)}/catalog.sqlite`);
  const broken = new Set<VolumeId>();
  const whole = Promise.withResolvers<VolumeId>();
  const plane = {
    stopping: false,
    async hydrate(volumeId: VolumeId): Promise<boolean> {
      if (broken.has(volumeId)) throw new Error('a pack is gone');
      whole.resolve(volumeId);
      return true;
    },
  };
  const runner = new HydrationRunner({
    catalog,
    dataPlane: plane as unknown as DataPlane,
    store: new MemoryStore(),
    keys: {} as DataKeys,
    now: () => new Date(),
    log: () => undefined,
  });
  const make = async (): Promise<VolumeId> => {
    const volumeId = await insertVolume(catalog);
    await catalog.updateTable('volumes').set({ hydrated: 0 }).where('volume_id', '=', volumeId).execute();
    return volumeId;
  };
  for (let count = 0; count < 4; count += 1) broken.add(await make());
  const sound = await make();
  for (const volumeId of [...broken, sound]) runner.kick(volumeId);
  assert.equal(await whole.promise, sound);
  plane.stopping = true;
});
