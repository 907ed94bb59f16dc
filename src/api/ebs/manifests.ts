import type { SnapshotRow } from '../../catalog/schema.ts';
import type { ObjectReader } from '../../objects/object-store.ts';
import { Manifest } from '../../snapshots/manifest.ts';
import { keepLatest } from '../../types/keep-latest.ts';
import type { Sha256 } from '../../types/units.ts';
import type { Services } from '../operation.ts';
import { apiPatience } from './ebs-operation.ts';

/** A reader goes through one snapshot, or two; each manifest keeps up to a few MiB of its nodes. */
const KEPT = 4;

/**
 * The manifests that were asked for last. A snapshot is read with a request for each block: without them, each would fetch
 * three nodes from the object store before the block.
 */
export class Manifests {
  readonly #services: Services;
  readonly #reader: ObjectReader;
  readonly #kept = new Map<Sha256, Manifest>();
  /** Of no snapshot. */
  readonly empty: Manifest;

  constructor(services: Services, reader: ObjectReader) {
    this.#services = services;
    this.#reader = reader;
    this.empty = new Manifest(reader, undefined, apiPatience(), undefined);
  }

  /** @throws KeyError when the snapshot is encrypted, and its key cannot be used now */
  async of({ root, data_key_id }: SnapshotRow): Promise<Manifest> {
    const { keys } = this.#services;
    // Each time, though the manifest may be here: a key that was disabled meanwhile must let nobody read on.
    const key = await keys.open(data_key_id);
    if (root === null) return this.empty;
    const manifest = this.#kept.get(root) ?? new Manifest(this.#reader, root, apiPatience(), key);
    keepLatest(this.#kept, KEPT, root, manifest);
    return manifest;
  }
}
