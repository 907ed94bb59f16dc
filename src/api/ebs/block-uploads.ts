import { setImmediate } from 'node:timers/promises';
import type { DirectBlockRow } from '../../catalog/schema.ts';
import { Together } from '../../catalog/together.ts';
import type { DataKeys } from '../../keys/data-keys.ts';
import { blockHash, type Encoded, encodeBlock, isZero, type RecordLocation } from '../../snapshots/block-encoding.ts';
import { PackBuilder, packKey } from '../../snapshots/pack.ts';
import type { SnapshotId } from '../../types/ids.ts';
import { giveBack, roomFor } from '../../types/memory.ts';
import { BLOCK_BYTES, type Sha256 } from '../../types/units.ts';
import type { Services } from '../operation.ts';
import { ebsErrors } from './ebs-errors.ts';

/** The services that it needs. */
type Needed = Pick<Services, 'catalog' | 'store' | 'now'> & {
  lifecycle: Pick<Services['lifecycle'], 'locks'>;
  dataPlane: Pick<Services['dataPlane'], 'afterHold'>;
};

/** What sealing adds to a block, and more. */
const ROOM_FOR_BLOCK_BYTES = BLOCK_BYTES + 64;
/** A pack's header, and more. */
const ROOM_FOR_PACK_BYTES = 4096;

type Key = Awaited<ReturnType<DataKeys['open']>>;
/** `encoded`: undefined for zeroes, of which nothing is stored; `hash`: see blockHash. */
type ReadyBlock = { index: number; digest: Sha256; hash: Sha256; encoded: Encoded | undefined; key: Key };
type Upload = { together: Together<ReadyBlock, undefined>; asking: number };

/**
 * Stores the blocks of snapshots that are written block by block. Those of one snapshot that come while others of it are
 * being stored go together: one object with its syncs, and one commit. For each block by itself these cost more than all
 * else, and others wait for so many syncs: guests' writes, and cuts.
 */
export class BlockUploads {
  readonly #services: Needed;
  readonly #uploads = new Map<SnapshotId, Upload>();

  constructor(services: Needed) {
    this.#services = services;
  }

  /**
   * Resolves when the block is in the object store, and the catalog names it.
   * @param block of which nothing is kept afterwards
   * @param digest its SHA-256
   * @throws ApiError ValidationException when the snapshot is not being written any more
   */
  async store(id: SnapshotId, index: number, block: Buffer, digest: Sha256, key: Key): Promise<void> {
    const encoded = isZero(block) ? undefined : await encodeBlock(block);
    await this.#services.dataPlane.afterHold();
    const hash = key === undefined ? digest : blockHash(block, key);
    const upload = this.#of(id);
    upload.asking += 1;
    try {
      await upload.together.ask({ index, digest, hash, encoded, key });
    } finally {
      upload.asking -= 1;
      if (upload.asking === 0) this.#uploads.delete(id);
      if (encoded !== undefined && encoded.stored !== block) giveBack(encoded.stored);
    }
  }

  #of(id: SnapshotId): Upload {
    const known = this.#uploads.get(id);
    if (known !== undefined) return known;
    let storing: Promise<unknown> = Promise.resolve();
    const storeAll = (blocks: readonly ReadyBlock[]): Promise<undefined[]> => {
      const stored = this.#storeAll(id, blocks);
      storing = stored.catch(() => undefined);
      return stored;
    };
    const upload = { together: new Together(storeAll, () => storing.then(() => setImmediate())), asking: 0 };
    this.#uploads.set(id, upload);
    return upload;
  }

  async #storeAll(id: SnapshotId, blocks: readonly ReadyBlock[]): Promise<undefined[]> {
    // The blocks before the rows that name them: after a crash in between, an object that no one names is left.
    const locations = await this.#storePack(blocks);
    const { lifecycle, catalog, dataPlane, now } = this.#services;
    await dataPlane.afterHold();
    // Not while it is being completed: what is acknowledged must be in the manifest. And who comes after that is refused:
    // the row would keep its pack for ever.
    await lifecycle.locks.hold([id], async () => {
      await this.#assertBeingWritten(id);
      await catalog.transaction().execute(async (transaction) => {
        for (const block of blocks) {
          const row = rowOf(id, block, locations.get(block));
          await transaction
            .insertInto('direct_blocks')
            .values(row)
            .onConflict((conflict) => conflict.columns(['snapshot_id', 'block_index']).doUpdateSet(row))
            .execute();
        }
        const active_at = now().toISOString();
        await transaction.updateTable('direct_uploads').set({ active_at }).where('snapshot_id', '=', id).execute();
      });
    });
    return blocks.map(() => undefined);
  }

  async #storePack(blocks: readonly ReadyBlock[]): Promise<Map<ReadyBlock, RecordLocation>> {
    const locations = new Map<ReadyBlock, RecordLocation>();
    const withData = blocks.filter(({ encoded }) => encoded !== undefined);
    if (withData.length === 0) return locations;
    const room = roomFor(ROOM_FOR_PACK_BYTES + withData.length * ROOM_FOR_BLOCK_BYTES);
    // (All blocks of a snapshot have the same key.)
    const pack = new PackBuilder(blocks[0].key, room);
    for (const block of withData) {
      if (block.encoded !== undefined) locations.set(block, pack.add(block.encoded, block.hash));
    }
    await this.#services.store.put(packKey(pack.id), pack.finish());
    // Not where that failed: the store's client may still be sending from it.
    giveBack(room);
    return locations;
  }

  async #assertBeingWritten(id: SnapshotId): Promise<void> {
    const found = await this.#services.catalog
      .selectFrom('direct_uploads')
      .innerJoin('snapshots', 'snapshots.snapshot_id', 'direct_uploads.snapshot_id')
      .select('snapshots.state')
      .where('direct_uploads.snapshot_id', '=', id)
      .executeTakeFirst();
    if (found?.state !== 'pending') throw ebsErrors.notBeingWritten(id);
  }
}

function rowOf(id: SnapshotId, block: ReadyBlock, location: RecordLocation | undefined): DirectBlockRow {
  return {
    snapshot_id: id,
    block_index: block.index,
    sha256: block.digest,
    block_hash: location?.sha256 ?? block.digest,
    pack: location?.pack ?? null,
    pack_offset: location?.offset ?? 0,
    stored_length: location?.length ?? 0,
    encoding: location?.encoding ?? 0,
  };
}
