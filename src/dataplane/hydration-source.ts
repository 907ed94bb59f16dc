import type { SnapshotSource } from '../snapshots/snapshot-source.ts';
import { asBlock, type BlockIndex, type Sha256 } from '../types/units.ts';
import type { BlockSource } from '../volumes/block-source.ts';
import { newFetchRoom, slotOf } from './block-fetches.ts';
import type { FetchedBlock, FetchMethods, FetchThreadData, WorkerSettings } from './messages.ts';
import type { RpcPeer } from './rpc.ts';
import { startThread } from './start-thread.ts';

/** The thread that fetches, and the memory that it shares with this one. */
export type Fetcher = { peer: Pick<RpcPeer<FetchMethods>, 'call' | 'tell'>; room: SharedArrayBuffer };

/** Begun by the first hydration: most workers have none for most of their life. */
export function startFetcher(settings: WorkerSettings): Fetcher {
  const room = newFetchRoom();
  const data = { settings, fetchRoom: room } satisfies Omit<FetchThreadData, 'channel'>;
  return { peer: startThread<FetchMethods>(new URL('./fetch-thread.ts', import.meta.url), data, 8, {}), room };
}

let fetches = 0;

/**
 * Where the blocks of a volume that is being restored come from. Those that a guest waits for are fetched by the thread
 * that serves it; all the others, in the background, by one of their own (see BlockFetches).
 */
export class HydrationSource implements BlockSource {
  readonly #direct: SnapshotSource;
  readonly #origin: { root: Sha256; key: Uint8Array | undefined };
  readonly #fetcher: () => Fetcher;

  /** @param direct the same snapshot */
  constructor(direct: SnapshotSource, origin: { root: Sha256; key: Uint8Array | undefined }, fetcher: () => Fetcher) {
    this.#direct = direct;
    this.#origin = origin;
    this.#fetcher = fetcher;
  }

  read(block: BlockIndex): Promise<Uint8Array | undefined> {
    return this.#direct.read(block);
  }

  async *blocks(from: BlockIndex): AsyncGenerator<{ block: BlockIndex; bytes: Uint8Array }> {
    const { peer, room } = this.#fetcher();
    const fetch = fetches++;
    const next = (): Promise<FetchedBlock[]> => {
      const asked = peer.call('nextBlocks', { fetch });
      // Awaited when the batch before it is written; until then a failure must not count as one that no one handles.
      asked.catch(() => undefined);
      return asked;
    };
    peer.tell('beginFetch', { fetch, source: this.#origin, from });
    try {
      for (let coming = next(); ; ) {
        const batch = await coming;
        if (batch.length === 0) return;
        coming = next();
        for (const { block, slot } of batch) yield { block: asBlock(block), bytes: slotOf(room, slot) };
        peer.tell('writtenBlocks', { fetch, slots: batch.map(({ slot }) => slot) });
      }
    } finally {
      peer.tell('endFetch', { fetch });
    }
  }
}
