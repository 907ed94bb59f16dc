import type { SnapshotSource } from '../snapshots/snapshot-source.ts';
import { asBlock, BLOCK_BYTES, blockOf } from '../types/units.ts';
import type { OpenVolume } from '../volumes/engine.ts';
import type { Extent } from '../volumes/extents.ts';

/** A completed snapshot as a read-only export: every read goes to the object store, nothing is restored. */
export class SnapshotExport implements OpenVolume {
  readonly isPartlyRemote = true;
  readonly writesMayWait = false;
  readonly savesOldPages = false;
  readonly sizeBytes: number;
  readonly #source: SnapshotSource;

  constructor(source: SnapshotSource, sizeBytes: number) {
    this.#source = source;
    this.sizeBytes = sizeBytes;
  }

  readNow(): 'remote' {
    return 'remote';
  }

  async bringNear(): Promise<void> {}

  async read(target: Uint8Array, targetStart: number, length: number, offset: number): Promise<void> {
    const pieces: Promise<void>[] = [];
    for (let done = 0; done < length; ) {
      const at = offset + done;
      const start = at % BLOCK_BYTES;
      const bytes = Math.min(length - done, BLOCK_BYTES - start);
      const to = targetStart + done;
      pieces.push(
        this.#source.read(blockOf(at)).then((block) => {
          if (block === undefined) target.fill(0, to, to + bytes);
          else target.set(block.subarray(start, start + bytes), to);
        }),
      );
      done += bytes;
    }
    await Promise.all(pieces);
  }

  async extents(offset: number, length: number, most: number): Promise<Extent[]> {
    const extents: Extent[] = [];
    const end = offset + length;
    for (let at = offset; at < end && extents.length < most; ) {
      const next = await this.#source.nextData(blockOf(at));
      const data = Math.max(at, next === undefined ? end : Math.min(end, next * BLOCK_BYTES));
      if (data > at) extents.push({ length: data - at, hole: true });
      let until = data;
      while (
        until < end &&
        (await this.#source.manifest.locate(asBlock(Math.floor(until / BLOCK_BYTES)))) !== undefined
      ) {
        until = Math.min(end, (blockOf(until) + 1) * BLOCK_BYTES);
      }
      if (until > data && extents.length < most) extents.push({ length: until - data, hole: false });
      at = until;
    }
    return extents;
  }

  saveAhead(): void {}

  write(): never {
    throw readOnlyError();
  }

  zero(): never {
    throw readOnlyError();
  }

  discard(): never {
    throw readOnlyError();
  }

  async flush(): Promise<void> {}
}

function readOnlyError(): Error {
  return Object.assign(new Error('a snapshot cannot be written to'), { code: 'EPERM' });
}
