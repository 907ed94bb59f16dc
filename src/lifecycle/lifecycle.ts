import { setTimeout as sleep } from 'node:timers/promises';
import { sql } from 'kysely';
import { removeTags } from '../catalog/tags.ts';
import type { CaptureProgress } from '../snapshots/capture.ts';
import type { InstanceId, SnapshotId, VolumeId } from '../types/ids.ts';
import { DAY_MILLISECONDS } from '../types/units.ts';
import { ArchiveRunner } from './archive-runner.ts';
import { Bases } from './bases.ts';
import { Collector } from './collector.ts';
import { CopyRunner } from './copy-runner.ts';
import { HydrationRunner } from './hydration-runner.ts';
import { Imports } from './imports.ts';
import { InstanceRunner } from './instance-runner.ts';
import { LastTime } from './last-time.ts';
import type { LifecycleOptions } from './options.ts';
import { emptyBin } from './recycle-bin.ts';
import { Repacker } from './repacker.ts';
import { failReplacements } from './replacements.ts';
import { ResourceLocks } from './resource-locks.ts';
import { Scrubber, type ScrubSettings } from './scrubber.ts';
import { SnapshotRecords } from './snapshot-records.ts';
import { SnapshotRunner } from './snapshot-runner.ts';
import { StoreOwner } from './store-owner.ts';
import { UploadGate } from './upload-gate.ts';
import { VolumeRunner } from './volume-runner.ts';
import { WrittenBlocks } from './written-blocks.ts';

const COLLECTION_MILLISECONDS = DAY_MILLISECONDS;
/** Tried in vain for so long, a collection holds uploads back. */
const VAIN_MILLISECONDS = 6 * 60 * 60 * 1000;
/** Terminated instances stay visible for about an hour. */
const TERMINATED_MILLISECONDS = 60 * 60 * 1000;
/** What takes longer to come up goes on behind the start: nobody's guests wait for another's keys. */
const START_PATIENCE_MILLISECONDS = 10_000;

/**
 * What moves things along from state to state. Every step is taken after the catalog has said what is to come, and can
 * be taken again: after a crash `recover` finishes what was begun.
 */
export class Lifecycle {
  readonly locks = new ResourceLocks();
  readonly records: SnapshotRecords;
  readonly snapshots: SnapshotRunner;
  readonly hydrations: HydrationRunner;
  readonly volumes: VolumeRunner;
  readonly instances: InstanceRunner;
  readonly copies: CopyRunner;
  readonly archives: ArchiveRunner;
  readonly imports: Imports;
  readonly uploads = new UploadGate();
  readonly collector: Collector;
  readonly storeOwner: StoreOwner;
  readonly bases: Bases;
  readonly repacker: Repacker;
  readonly scrubber: Scrubber;
  readonly #blocks: WrittenBlocks;
  readonly #options: LifecycleOptions;
  /** Volumes that were being made when the last server ended. */
  readonly #toBeMade = new Set<VolumeId>();
  /** What is being brought to where the catalog has it. */
  readonly #unfinished = new Set<InstanceId | VolumeId>();
  readonly #choresUnderWay = new Set<string>();
  readonly #collected: LastTime;
  /** Since when it has tried without insisting: what was due while no server ran was not tried in vain. */
  #triedSince: number;

  constructor(options: LifecycleOptions, scrub: ScrubSettings) {
    this.#options = options;
    this.#triedSince = options.now().getTime();
    this.#collected = new LastTime(options.catalog, 'collected-at');
    this.records = new SnapshotRecords(options.catalog, options.store, options.archive);
    this.bases = new Bases(options);
    this.scrubber = new Scrubber(options, scrub, this.bases);
    this.snapshots = new SnapshotRunner({
      ...options,
      uploads: this.uploads,
      records: this.records,
      bases: this.bases,
      // Where it cannot be removed now, it is once a minute (see finishBegun); the rest of its set ends all the same.
      onSnapshotEnded: (volumeId) =>
        this.volumes.reap([volumeId]).catch((error: Error) => options.log('warn', `${volumeId}: ${error.message}`)),
    });
    this.hydrations = new HydrationRunner(options);
    this.volumes = new VolumeRunner(options, this.hydrations);
    this.instances = new InstanceRunner(options, this.volumes);
    this.copies = new CopyRunner(options, this.uploads, this.snapshots);
    this.imports = new Imports(options, this.snapshots);
    this.storeOwner = new StoreOwner(options.catalog, options.store);
    this.archives = new ArchiveRunner(options, this.locks, this.uploads, this.records, this.storeOwner);
    this.#blocks = new WrittenBlocks(options);
    this.collector = new Collector(
      options,
      this.storeOwner,
      this.uploads,
      this.records,
      this.snapshots,
      this.#blocks,
      this.archives,
    );
    this.repacker = new Repacker(options, this.uploads, this.records, this.#blocks, this.archives);
  }

  /** How far a worker has come with a snapshot. */
  reportProgress(snapshotId: SnapshotId, progress: CaptureProgress): void {
    if (!this.archives.reportProgress(snapshotId, progress)) this.snapshots.reportProgress(snapshotId, progress);
  }

  /** What is done once a minute: all but what is still under way from the last time, waiting for a store, say. */
  async tidy(): Promise<void> {
    const { log } = this.#options;
    const chores: Record<string, () => Promise<void>> = {
      'what was begun': () => this.finishBegun(),
      'terminated instances': () => this.#forgetTerminated(),
      'data keys': () => this.#forgetDataKeys(),
      'idle uploads': () => this.#endIdleUploads(),
      'lost imports': () => this.imports.endLost(),
      'blocks of ended uploads': () => this.#blocks.sweep(),
      'the store': () => this.storeOwner.claim(),
      // Before the records, of which some are not wanted any more then.
      'the recycle bin': () => this.#emptyBin(),
      'restores from the archive': () => this.archives.endRestores(),
      'the archive': () => this.archives.removeDeleted(),
      'moves to and from it': () => this.archives.resume(),
      'its records': async () => {
        for (const message of await this.records.refreshStale()) log('warn', message);
      },
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
    const going = await catalog.selectFrom('volumes').select('volume_id').where('state', '=', 'deleting').execute();
    const growing = await catalog
      .selectFrom('volume_modifications')
      .select('volume_id')
      .where('state', '=', 'modifying')
      .execute();
    // All at once: one that waits for its key keeps none of the others.
    await Promise.all([
      ...growing.map(({ volume_id }) => this.#finish(volume_id, () => this.volumes.modify(volume_id))),
      ...instances.map(({ instance_id }) => this.#finish(instance_id, () => this.instances.settle(instance_id))),
      ...[...this.#toBeMade].map((volumeId) => this.#make(volumeId)),
    ]);
    await Promise.all(going.map(({ volume_id }) => this.#finish(volume_id, () => this.volumes.reap([volume_id]))));
  }

  /** Makes a volume that a start has found without its files. (A request that is making one undoes it itself.) */
  #make(volumeId: VolumeId): Promise<void> {
    return this.#finish(volumeId, async () => {
      const volume = await this.#options.catalog
        .selectFrom('volumes')
        .select('state')
        .where('volume_id', '=', volumeId)
        .executeTakeFirst();
      // Not one that was made meanwhile, with its instance: it would begin anew, empty.
      if (volume?.state === 'creating') await this.volumes.create([volumeId]);
      this.#toBeMade.delete(volumeId);
    });
  }

  /** One that cannot be finished yet keeps none of the others. */
  async #finish(id: InstanceId | VolumeId, work: () => Promise<void>): Promise<void> {
    const { dataPlane, log } = this.#options;
    this.#unfinished.add(id);
    try {
      await this.locks.hold([id], work);
    } catch (error) {
      if (!dataPlane.stopping) log('error', `${id} is not as it should be, trying again: ${(error as Error).message}`);
    } finally {
      this.#unfinished.delete(id);
    }
  }

  /** Once a day, or as soon after as nothing is being uploaded. Where there is never such a moment, one is made. */
  async #collectWhenDue(): Promise<void> {
    const { now, log } = this.#options;
    const due = (await this.#collected.since(now())) + COLLECTION_MILLISECONDS;
    if (now().getTime() < due) return;
    const insist = now().getTime() > Math.max(due, this.#triedSince) + VAIN_MILLISECONDS;
    if (insist) this.#triedSince = now().getTime();
    const { busy, objects, garbageBytes } = await this.collector.collect(true, insist);
    if (busy !== undefined) return;
    await this.#collected.remember(now());
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

  async #emptyBin(): Promise<void> {
    const { catalog, now, log } = this.#options;
    const deleted = await emptyBin(catalog, this.locks, now());
    if (deleted.length > 0) log('info', `deleted from the recycle bin, as their time was over: ${deleted.join(', ')}`);
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

  /**
   * After a start, before anyone is let in: finishes what was begun, and takes up what was going on. What waits for keys, or
   * for a slow disk, does so side by side, and after a while behind the start.
   */
  async recover(): Promise<void> {
    const { catalog, log, now } = this.#options;
    await failReplacements(catalog, now());
    const { opening } = await this.snapshots.recover();
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
    await Promise.race([
      Promise.all([...opening, this.finishBegun()]),
      sleep(START_PATIENCE_MILLISECONDS, undefined, { ref: false }),
    ]);
    if (this.#unfinished.size > 0) {
      const waiting = [...this.#unfinished].join(', ');
      log(
        'warn',
        `the server starts without these, which take longer than ${START_PATIENCE_MILLISECONDS} ms: ${waiting}`,
      );
    }
    await this.hydrations.recover();
    await this.copies.recover();
    await this.archives.recover();
    // Behind the start: an object store that is away must not keep the volumes from their guests.
    void this.storeOwner.claim().catch((error: Error) => log('warn', error.message));
  }
}
