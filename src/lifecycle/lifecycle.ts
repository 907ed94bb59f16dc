import { sql } from 'kysely';
import type { VolumeRow } from '../catalog/schema.ts';
import { removeTags } from '../catalog/tags.ts';
import { Together } from '../catalog/together.ts';
import type { InstanceId, VolumeId } from '../types/ids.ts';
import { GIB } from '../types/units.ts';
import { Bases } from './bases.ts';
import { Collector } from './collector.ts';
import { CopyRunner } from './copy-runner.ts';
import { HydrationRunner } from './hydration-runner.ts';
import type { LifecycleOptions } from './options.ts';
import { Repacker } from './repacker.ts';
import { failReplacements } from './replacements.ts';
import { ResourceLocks } from './resource-locks.ts';
import { Scrubber, type ScrubSettings } from './scrubber.ts';
import { SnapshotRecords } from './snapshot-records.ts';
import { SnapshotRunner } from './snapshot-runner.ts';
import { StoreOwner } from './store-owner.ts';
import { UploadGate } from './upload-gate.ts';
import { pendingCuts } from './volume-openings.ts';

/** Terminated instances stay visible for about an hour. */
const COLLECTION_MILLISECONDS = 24 * 60 * 60 * 1000;
const IMPORT_MILLISECONDS = 24 * 60 * 60 * 1000;
const TERMINATED_MILLISECONDS = 60 * 60 * 1000;

/**
 * What moves things along from state to state. Every step is taken after the catalog has said what is to come, and can
 * be taken again: after a crash `recover` finishes what was begun.
 */
export class Lifecycle {
  readonly locks = new ResourceLocks();
  readonly records: SnapshotRecords;
  readonly snapshots: SnapshotRunner;
  readonly hydrations: HydrationRunner;
  readonly copies: CopyRunner;
  readonly uploads = new UploadGate();
  readonly collector: Collector;
  readonly storeOwner: StoreOwner;
  readonly bases: Bases;
  readonly repacker: Repacker;
  readonly scrubber: Scrubber;
  readonly #options: LifecycleOptions;
  /** Volumes that were being made when the last server ended. */
  readonly #toBeMade = new Set<VolumeId>();
  readonly #choresUnderWay = new Set<string>();
  /** Asked at the end of each snapshot, and those of a set end at almost the same time. */
  readonly #stateOf = new Together((volumeIds: readonly VolumeId[]) => this.#statesOf(volumeIds));
  #collectedAt: number;

  constructor(options: LifecycleOptions, scrub: ScrubSettings) {
    this.#options = options;
    this.#collectedAt = options.now().getTime();
    this.records = new SnapshotRecords(options.catalog, options.store);
    this.bases = new Bases(options);
    this.scrubber = new Scrubber(options, scrub, this.bases);
    this.snapshots = new SnapshotRunner({
      ...options,
      uploads: this.uploads,
      records: this.records,
      bases: this.bases,
      // Where it cannot be removed now, it is once a minute (see finishBegun); the rest of its set ends all the same.
      onSnapshotEnded: (volumeId) =>
        this.reap(volumeId).catch((error: Error) => options.log('warn', `${volumeId}: ${error.message}`)),
    });
    this.hydrations = new HydrationRunner(options);
    this.copies = new CopyRunner(options, this.uploads, this.snapshots);
    this.storeOwner = new StoreOwner(options.catalog, options.store);
    this.collector = new Collector(options, this.storeOwner, this.uploads, this.records);
    this.repacker = new Repacker(options, this.uploads, this.records);
  }

  /** Makes the files of a volume that the catalog has as `creating`. */
  async createVolume(volumeId: VolumeId): Promise<void> {
    const { catalog, dataPlane, keys } = this.#options;
    const volume = await catalog
      .selectFrom('volumes')
      .selectAll()
      .where('volume_id', '=', volumeId)
      .executeTakeFirstOrThrow();
    const restored = volume.origin_root !== null;
    const key = await keys.open(volume.data_key_id);
    // Restored under another key than its snapshot's: no block that is stored can be part of its own snapshots.
    const baseless = restored && volume.base_root === null;
    const sizeBytes = volume.size_gib * GIB;
    await dataPlane.create({ volumeId, sizeBytes, restored, baseless, key: key?.bytes });
    const attached = await catalog
      .selectFrom('attachments')
      .select('volume_id')
      .where('volume_id', '=', volumeId)
      .executeTakeFirst();
    await catalog
      .updateTable('volumes')
      .set({ state: attached === undefined ? 'available' : 'in-use' })
      .where('volume_id', '=', volumeId)
      .execute();
    if (restored) this.hydrations.kick(volumeId);
  }

  /** Carries out the modification that the catalog has as `modifying`: the volume grows while clients use it. */
  async modifyVolume(volumeId: VolumeId): Promise<void> {
    const { catalog, dataPlane, now } = this.#options;
    const modification = await catalog
      .selectFrom('volume_modifications')
      .selectAll()
      .where('volume_id', '=', volumeId)
      .executeTakeFirstOrThrow();
    try {
      await dataPlane.grow(volumeId, modification.target_size_gib * GIB);
    } catch (error) {
      await catalog
        .updateTable('volume_modifications')
        .set({ state: 'failed', message: (error as Error).message, ended_at: now().toISOString() })
        .where('volume_id', '=', volumeId)
        .execute();
      return;
    }
    await catalog.transaction().execute(async (transaction) => {
      await transaction
        .updateTable('volumes')
        .set({
          size_gib: modification.target_size_gib,
          volume_type: modification.target_type,
          iops: modification.target_iops,
          throughput: modification.target_throughput,
        })
        .where('volume_id', '=', volumeId)
        .execute();
      await transaction
        .updateTable('volume_modifications')
        .set({ state: 'completed', ended_at: now().toISOString() })
        .where('volume_id', '=', volumeId)
        .execute();
    });
  }

  /** Removes a volume that the catalog has as `deleting`, once no pending snapshot needs its bytes. */
  async reap(volumeId: VolumeId): Promise<void> {
    const { catalog, dataPlane } = this.#options;
    if ((await this.#stateOf.ask(volumeId)) !== 'deleting' || (await pendingCuts(catalog, [volumeId])).size > 0) return;
    await dataPlane.remove(volumeId);
    await removeTags(catalog, volumeId);
    await catalog.deleteFrom('volumes').where('volume_id', '=', volumeId).execute();
  }

  async #statesOf(volumeIds: readonly VolumeId[]): Promise<(VolumeRow['state'] | undefined)[]> {
    const { catalog } = this.#options;
    const asked = catalog.selectFrom('volumes').select(['volume_id', 'state']).where('volume_id', 'in', volumeIds);
    const states = new Map((await asked.execute()).map((row) => [row.volume_id, row.state]));
    return volumeIds.map((volumeId) => states.get(volumeId));
  }

  /** Brings an instance that the catalog has as `pending` up: its volumes made and exported. */
  async bringUp(instanceId: InstanceId): Promise<void> {
    const { catalog, dataPlane } = this.#options;
    const volumes = await catalog
      .selectFrom('attachments')
      .innerJoin('volumes', 'volumes.volume_id', 'attachments.volume_id')
      .select(['volumes.volume_id', 'volumes.state'])
      .where('attachments.instance_id', '=', instanceId)
      .execute();
    for (const volume of volumes) if (volume.state === 'creating') await this.createVolume(volume.volume_id);
    await Promise.all(volumes.map((volume) => dataPlane.exportVolume(volume.volume_id)));
    await this.#setState(instanceId, 'running');
  }

  /** Stops an instance that the catalog has as `stopping`: its exports end, all that was written is durable. */
  async bringDown(instanceId: InstanceId): Promise<void> {
    await this.#endExports(instanceId);
    await this.#setState(instanceId, 'stopped');
  }

  /** Takes an instance that the catalog has as `shutting-down` apart; volumes marked so go with it. */
  async takeApart(instanceId: InstanceId): Promise<void> {
    const { catalog, now } = this.#options;
    await this.#endExports(instanceId);
    const attached = await catalog
      .selectFrom('attachments')
      .selectAll()
      .where('instance_id', '=', instanceId)
      .execute();
    await catalog.transaction().execute(async (transaction) => {
      await transaction.deleteFrom('attachments').where('instance_id', '=', instanceId).execute();
      for (const { volume_id, delete_on_termination } of attached) {
        const other = await transaction
          .selectFrom('attachments')
          .select('instance_id')
          .where('volume_id', '=', volume_id)
          .executeTakeFirst();
        // Attached elsewhere too: it stays as it is.
        if (other !== undefined) continue;
        const state = delete_on_termination === 1 ? 'deleting' : 'available';
        let update = transaction.updateTable('volumes').set({ state }).where('volume_id', '=', volume_id);
        // One that is still to be made (see #makeVolumes) is so without its instance, too.
        if (state === 'available') update = update.where('state', '!=', 'creating');
        await update.execute();
      }
      await transaction
        .updateTable('instances')
        .set({ state: 'terminated', terminated_at: now().toISOString() })
        .where('instance_id', '=', instanceId)
        .execute();
    });
    for (const { volume_id } of attached) await this.reap(volume_id);
  }

  /** What is done once a minute: all but what is still under way from the last time, waiting for a store, say. */
  async tidy(): Promise<void> {
    const { log } = this.#options;
    const chores: Record<string, () => Promise<void>> = {
      'what was begun': () => this.finishBegun(),
      'terminated instances': () => this.#forgetTerminated(),
      'data keys': () => this.#forgetDataKeys(),
      'idle uploads': () => this.#endIdleUploads(),
      'lost imports': () => this.#endLostImports(),
      'the store': () => this.storeOwner.claim(),
      'its records': () => this.records.refreshStale(),
      collection: () => this.#collectWhenDue(),
      scrubbing: () => this.scrubber.runWhenDue(),
    };
    for (const [name, chore] of Object.entries(chores)) {
      if (this.#choresUnderWay.has(name)) continue;
      this.#choresUnderWay.add(name);
      await chore().catch((error: Error) => log('warn', `tidying up: ${error.message}`));
      this.#choresUnderWay.delete(name);
    }
  }

  /**
   * Finishes what was begun and could not be ended: a worker died just then, or the keeper of keys was away. After a
   * worker has come back, and once a minute.
   */
  async finishBegun(): Promise<void> {
    const { catalog } = this.#options;
    const instances = await catalog
      .selectFrom('instances')
      .select('instance_id')
      .where('state', 'in', ['pending', 'running', 'stopping', 'shutting-down'])
      .execute();
    for (const { instance_id } of instances) {
      await this.#finish(instance_id, async () => {
        const row = await catalog
          .selectFrom('instances')
          .select('state')
          .where('instance_id', '=', instance_id)
          .executeTakeFirst();
        if (row !== undefined) await this.#recoverInstance(instance_id, row.state);
      });
    }
    await this.#makeVolumes();
    const going = await catalog.selectFrom('volumes').select('volume_id').where('state', '=', 'deleting').execute();
    for (const { volume_id } of going) await this.#finish(volume_id, () => this.reap(volume_id));
  }

  /** Makes the volumes that a start has found without their files. (A request that is making one undoes it itself.) */
  async #makeVolumes(): Promise<void> {
    for (const volumeId of this.#toBeMade) {
      await this.#finish(volumeId, async () => {
        const volume = await this.#options.catalog
          .selectFrom('volumes')
          .select('state')
          .where('volume_id', '=', volumeId)
          .executeTakeFirst();
        // Not one that was made meanwhile, with its instance: it would begin anew, empty.
        if (volume?.state === 'creating') await this.createVolume(volumeId);
        this.#toBeMade.delete(volumeId);
      });
    }
  }

  /** One that cannot be finished yet keeps none of the others. */
  async #finish(id: InstanceId | VolumeId, work: () => Promise<void>): Promise<void> {
    await this.locks.hold([id], work).catch((error: Error) => this.#options.log('warn', `${id}: ${error.message}`));
  }

  /** Once a day, or as soon after as nothing is being uploaded. */
  async #collectWhenDue(): Promise<void> {
    const { now, log } = this.#options;
    if (now().getTime() - this.#collectedAt < COLLECTION_MILLISECONDS) return;
    const { busy, objects, garbageBytes } = await this.collector.collect(true);
    if (busy !== undefined) return;
    this.#collectedAt = now().getTime();
    log('info', `collected ${objects} objects, ${garbageBytes} bytes, from the object store`);
    // After it, behind the other chores: what is dead altogether needs no moving.
    void this.repacker
      .run(true)
      .then(({ packs, movedBytes }) => log('info', `repacked ${packs} packs, of which ${movedBytes} bytes are needed`))
      .catch((error: Error) => log('warn', `repacking: ${error.message}`));
  }

  /** Snapshots that are written through the EBS direct APIs, and have not been for longer than they may. */
  async #endIdleUploads(): Promise<void> {
    const { catalog, now } = this.#options;
    const uploads = await catalog
      .selectFrom('direct_uploads')
      .innerJoin('snapshots', 'snapshots.snapshot_id', 'direct_uploads.snapshot_id')
      .select(['snapshots.snapshot_id', 'snapshots.account_id', 'timeout_minutes', 'active_at'])
      .where('snapshots.state', '=', 'pending')
      .execute();
    for (const { snapshot_id, account_id, timeout_minutes, active_at } of uploads) {
      if (now().getTime() - Date.parse(active_at) < timeout_minutes * 60_000) continue;
      const reason = `The snapshot was not completed, nor written to, for ${timeout_minutes} minutes.`;
      await this.snapshots.failImport(snapshot_id, account_id, reason);
    }
  }

  /** Imports whose CLI has not come back for a day: nothing stays pending for ever. */
  async #endLostImports(): Promise<void> {
    const { catalog, now } = this.#options;
    const before = new Date(now().getTime() - IMPORT_MILLISECONDS).toISOString();
    const lost = await catalog
      .selectFrom('snapshots')
      .select(['snapshot_id', 'account_id'])
      .where('state', '=', 'pending')
      .where('boundary', 'is', null)
      .where('root', 'is', null)
      .where('started_at', '<', before)
      .where('snapshot_id', 'not in', (select) =>
        select.selectFrom('direct_uploads').select('direct_uploads.snapshot_id'),
      )
      .where('snapshot_id', 'not in', (select) =>
        select.selectFrom('snapshot_copies').select('snapshot_copies.snapshot_id'),
      )
      .execute();
    for (const { snapshot_id, account_id } of lost) {
      await this.snapshots.failImport(snapshot_id, account_id, 'The import was not finished within a day.');
    }
  }

  /** Forgets the instances that were terminated an hour ago. */
  async #forgetTerminated(): Promise<void> {
    const { catalog, now } = this.#options;
    const before = new Date(now().getTime() - TERMINATED_MILLISECONDS).toISOString();
    const gone = await catalog
      .selectFrom('instances')
      .select('instance_id')
      .where('state', '=', 'terminated')
      .where('terminated_at', '<', before)
      .execute();
    for (const { instance_id } of gone) {
      await removeTags(catalog, instance_id);
      await catalog.deleteFrom('instances').where('instance_id', '=', instance_id).execute();
    }
  }

  /** Forgets data keys that nothing is encrypted with any more. */
  async #forgetDataKeys(): Promise<void> {
    await sql`delete from data_keys
      where not exists (select 1 from snapshots where snapshots.data_key_id = data_keys.data_key_id)
      and not exists (select 1 from volumes
        where data_keys.data_key_id in (volumes.data_key_id, volumes.origin_key_id))
      and not exists (select 1 from snapshot_copies where source_key_id = data_keys.data_key_id)`.execute(
      this.#options.catalog,
    );
  }

  /** After a start, before anyone is let in: finishes what was begun, and takes up what was going on. */
  async recover(): Promise<void> {
    const { catalog, log } = this.#options;
    await failReplacements(catalog, this.#options.now());
    // Before any export: from the first write on, the bytes of pending cuts must be kept.
    await this.snapshots.recover();
    const volumes = await catalog
      .selectFrom('volumes')
      .leftJoin('attachments', 'attachments.volume_id', 'volumes.volume_id')
      .leftJoin('instances', 'instances.instance_id', 'attachments.instance_id')
      .select(['volumes.volume_id', 'volumes.state', 'instances.state as instance_state'])
      .where('volumes.state', 'in', ['creating', 'deleting'])
      .execute();
    for (const { volume_id, state, instance_state } of volumes) {
      // Those of an instance that is coming up are made with it.
      if (state === 'creating' && instance_state !== 'pending') this.#toBeMade.add(volume_id);
    }
    await this.#makeVolumes();
    for (const { volume_id, state } of volumes) {
      if (state === 'deleting') await this.#finish(volume_id, () => this.reap(volume_id));
    }
    const growing = await catalog
      .selectFrom('volume_modifications')
      .select('volume_id')
      .where('state', '=', 'modifying')
      .execute();
    for (const { volume_id } of growing) await this.modifyVolume(volume_id);
    const instances = await catalog.selectFrom('instances').select(['instance_id', 'state']).execute();
    for (const { instance_id, state } of instances) {
      try {
        await this.#recoverInstance(instance_id, state);
      } catch (error) {
        // One broken volume must not keep all the others away from their owners.
        log('error', `${instance_id} could not be brought up: ${(error as Error).message}`);
      }
    }
    await this.hydrations.recover();
    await this.copies.recover();
    // Behind the start: an object store that is away must not keep the volumes from their guests.
    void this.storeOwner.claim().catch((error: Error) => log('warn', error.message));
  }

  async #recoverInstance(instanceId: InstanceId, state: string): Promise<void> {
    if (state === 'pending') await this.bringUp(instanceId);
    else if (state === 'stopping') await this.bringDown(instanceId);
    else if (state === 'shutting-down') await this.takeApart(instanceId);
    else if (state === 'running') {
      const { dataPlane } = this.#options;
      const missing = (await this.#attached(instanceId)).filter((id) => dataPlane.exported(id) === undefined);
      const exporting = missing.map((volumeId) => dataPlane.exportVolume(volumeId));
      // One that cannot be had keeps none of the instance's others.
      await Promise.allSettled(exporting);
      await Promise.all(exporting);
    }
  }

  async #endExports(instanceId: InstanceId): Promise<void> {
    const volumes = await this.#attached(instanceId);
    await Promise.all(volumes.map((volumeId) => this.endExport(volumeId, instanceId)));
  }

  /**
   * Ends a volume's export for one instance. Where it is attached to another running one too (multi-attach) it goes on:
   * connections belong to a volume, and cannot be told apart by instance.
   */
  async endExport(volumeId: VolumeId, instanceId: InstanceId): Promise<void> {
    const other = await this.#options.catalog
      .selectFrom('attachments')
      .innerJoin('instances', 'instances.instance_id', 'attachments.instance_id')
      .select('instances.instance_id')
      .where('attachments.volume_id', '=', volumeId)
      .where('attachments.instance_id', '!=', instanceId)
      .where('instances.state', '=', 'running')
      .executeTakeFirst();
    if (other === undefined) await this.#options.dataPlane.endExport(volumeId);
  }

  async #attached(instanceId: InstanceId): Promise<VolumeId[]> {
    const rows = await this.#options.catalog
      .selectFrom('attachments')
      .select('volume_id')
      .where('instance_id', '=', instanceId)
      .execute();
    return rows.map((row) => row.volume_id);
  }

  async #setState(instanceId: InstanceId, state: 'running' | 'stopped'): Promise<void> {
    await this.#options.catalog.updateTable('instances').set({ state }).where('instance_id', '=', instanceId).execute();
  }
}
