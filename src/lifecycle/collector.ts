import { setTimeout as sleep } from 'node:timers/promises';
import type { Catalog } from '../catalog/catalog.ts';
import type { ObjectStore } from '../objects/object-store.ts';
import { type Garbage, type Live, Marking, removeGarbage } from '../snapshots/collection.ts';
import type { SnapshotId } from '../types/ids.ts';
import { DAY_MILLISECONDS, type Sha256 } from '../types/units.ts';
import { allSnapshots } from './all-snapshots.ts';
import type { ArchiveRunner } from './archive-runner.ts';
import type { LifecycleOptions } from './options.ts';
import { pendingUploads } from './pending-snapshots.ts';
import type { SnapshotRecords } from './snapshot-records.ts';
import type { SnapshotRunner } from './snapshot-runner.ts';
import type { StoreOwner } from './store-owner.ts';
import type { UploadGate } from './upload-gate.ts';
import type { WrittenBlocks } from './written-blocks.ts';

/** So long it looks for a moment without uploads, when all that can be done beside them is done. */
const QUIET_MILLISECONDS = 60_000;
const LOOK_MILLISECONDS = 100;
/** So long new uploads wait for one that must be. One that is resting for its guests takes a quarter of an hour or two. */
const PATIENCE_MILLISECONDS = 45 * 60_000;
/** How long a manifest that was written anew is kept for those who read by it. */
const RETIRED_MILLISECONDS = DAY_MILLISECONDS;

export type Collected = {
  /** Why nothing was looked at; try again later. */
  busy: string | undefined;
  removed: boolean;
  objects: number;
  garbageBytes: number;
  liveBytes: number;
};

const UPLOADING = 'an upload is under way';
const NOTHING = { removed: false, objects: 0, garbageBytes: 0, liveBytes: 0 };

/** Frees what deleted snapshots and broken uploads have left in the object store. */
export class Collector {
  readonly #catalog: Catalog;
  readonly #store: ObjectStore;
  readonly #gate: UploadGate;
  readonly #records: SnapshotRecords;
  readonly #owner: StoreOwner;
  readonly #snapshots: SnapshotRunner;
  readonly #blocks: WrittenBlocks;
  readonly #archives: ArchiveRunner;
  readonly #now: () => Date;
  readonly #rest: () => Promise<void>;
  #isRunning = false;

  constructor(
    { catalog, store, now, dataPlane }: LifecycleOptions,
    owner: StoreOwner,
    gate: UploadGate,
    records: SnapshotRecords,
    snapshots: SnapshotRunner,
    blocks: WrittenBlocks,
    archives: ArchiveRunner,
  ) {
    this.#catalog = catalog;
    this.#store = store;
    this.#owner = owner;
    this.#now = now;
    // What it does with a node takes this thread a moment, for which no guest is to wait.
    this.#rest = () => dataPlane.afterHold();
    this.#gate = gate;
    this.#records = records;
    this.#snapshots = snapshots;
    this.#blocks = blocks;
    this.#archives = archives;
  }

  /**
   * Looks for garbage, and removes it unless it is only to be shown. Uploads wait for the end of it only, in which what has
   * changed meanwhile is looked at, and garbage is removed.
   * @param insist lets no upload of a snapshot begin from when all is looked at until those under way have ended: where there
   * is always one, there would be no end to it
   * @throws when the store belongs to another server, or what is live cannot all be read: then nothing is removed
   */
  async collect(remove: boolean, insist = false): Promise<Collected> {
    if (this.#isRunning) return { busy: 'another collection is under way', ...NOTHING };
    this.#isRunning = true;
    try {
      // Before the work, which would be in vain.
      const busy = await (insist ? this.#importing() : this.#gate.busy ? UPLOADING : this.#unstored());
      if (busy !== undefined) return { busy, ...NOTHING };
      await this.#owner.require();
      // Before what they name can be taken away: a record in the bucket must not outlive its manifest.
      await this.#records.refreshStale();
      await this.#records.requireAllKnown(this.#rest);
      if (remove) await this.#forgetRetired();
      const marking = new Marking(this.#store, this.#rest);
      await marking.add(await this.#live());
      const candidates = await marking.listUnneeded();
      const finish = (): Promise<Collected> => this.#finish(marking, candidates, remove);
      if (!insist) return await this.#inQuiet(finish);
      const collected = await this.#gate.collectAfterUploads(PATIENCE_MILLISECONDS, finish);
      return collected ?? { busy: UPLOADING, ...NOTHING };
    } finally {
      this.#isRunning = false;
    }
  }

  /** While no upload is under way: what has come to be since then is marked, and all else of the list is garbage. */
  async #finish(marking: Marking, candidates: Garbage, remove: boolean): Promise<Collected> {
    const busy = await this.#unstored();
    if (busy !== undefined) return { busy, ...NOTHING };
    // It may have been some time.
    await this.#owner.require();
    await this.#records.refreshStale();
    await marking.add(await this.#live());
    const garbage = marking.stillUnneeded(candidates);
    if (remove) {
      await removeGarbage(this.#store, garbage);
      await this.#store.removeUnfinished();
    }
    const { objects, garbageBytes, liveBytes } = garbage;
    return { busy: undefined, removed: remove, objects: objects.length, garbageBytes, liveBytes };
  }

  /** Looks for a moment in which nothing is being uploaded. */
  async #inQuiet(work: () => Promise<Collected>): Promise<Collected> {
    for (const begun = performance.now(); ; await sleep(LOOK_MILLISECONDS)) {
      const collected = (await this.#gate.collect(work)) ?? { busy: UPLOADING, ...NOTHING };
      if (collected.busy === undefined || performance.now() - begun > QUIET_MILLISECONDS) return collected;
    }
  }

  /**
   * An upload that is to go on, after its worker has died or the server has started again, has objects in the store that only
   * its journal names.
   */
  async #unstored(): Promise<string | undefined> {
    const begun = (await pendingUploads(this.#catalog)).find((row) => this.#snapshots.hasBegun(row.snapshot_id));
    return begun === undefined ? this.#importing() : `${begun.snapshot_id} is not stored yet`;
  }

  /** Of an import's objects only the CLI knows. */
  async #importing(): Promise<string | undefined> {
    const imported = (await pendingUploads(this.#catalog)).find((row) => row.boundary === null);
    return imported && `${imported.snapshot_id} is being imported`;
  }

  async #forgetRetired(): Promise<void> {
    const before = new Date(this.#now().getTime() - RETIRED_MILLISECONDS).toISOString();
    await this.#catalog.deleteFrom('retired_roots').where('retired_at', '<', before).execute();
  }

  async #live(): Promise<Live> {
    const packs = await this.#blocks.packs();
    // After the blocks: of one that is completed meanwhile they are below its root.
    const snapshotIds: SnapshotId[] = [];
    const roots = new Set<Sha256>();
    for await (const { snapshot_id, root } of allSnapshots(this.#catalog, this.#rest)) {
      snapshotIds.push(snapshot_id);
      if (root !== null) roots.add(root);
    }
    const volumes = await this.#catalog
      .selectFrom('volumes')
      .select(['base_root', 'origin_root', 'hydrated'])
      .execute();
    const copies = await this.#catalog.selectFrom('snapshot_copies').select('source_root').execute();
    // After the snapshots: a parent that is deleted meanwhile is here.
    const uploads = await this.#blocks.parents();
    const retired = await this.#catalog.selectFrom('retired_roots').select('root').execute();
    for (const { root } of retired) roots.add(root);
    for (const root of this.#archives.rootsBeingRead()) roots.add(root);
    for (const { base_root, origin_root, hydrated } of volumes) {
      if (base_root !== null) roots.add(base_root);
      if (origin_root !== null && hydrated === 0) roots.add(origin_root);
    }
    for (const { source_root } of copies) roots.add(source_root);
    for (const { parent_root } of uploads) if (parent_root !== null) roots.add(parent_root);
    return { roots: [...roots], packs: [...packs], snapshotIds };
  }
}
