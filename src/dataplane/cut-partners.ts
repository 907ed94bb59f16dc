import type { Socket } from 'node:net';
import { RpcPeer } from './rpc.ts';
import { socketChannel } from './socket-channel.ts';

/** What one worker tells another. */
export type PartnerMethods = {
  /** The writes to its volumes are held for this cut. */
  held: (news: { token: string }) => void;
};

type Waiting = { token: string; others: readonly number[]; all: PromiseWithResolvers<void> };

/**
 * The other workers, heard directly. A cut needs to know that writes are held everywhere; by way of the server, which
 * has the API to serve, guests would wait for two more messages, and for whatever its thread is doing.
 */
export class CutPartners {
  readonly #peers = new Map<number, RpcPeer<PartnerMethods>>();
  /** Of each, the latest cut that it holds its writes for, or has. Cuts come one after the other, and no token twice. */
  readonly #heard = new Map<number, string>();
  #waiting: Waiting | undefined;

  /** From here on this worker is reached by this socket; one that had its number before is gone. */
  meet(worker: number, socket: Socket): void {
    const peer: RpcPeer<PartnerMethods> = new RpcPeer<PartnerMethods>(socketChannel(socket), {
      held: ({ token }: { token: string }) => {
        if (this.#peers.get(worker) === peer) this.#hear(worker, token);
      },
    });
    this.#peers.set(worker, peer);
    this.#heard.delete(worker);
    socket.on('error', () => socket.destroy());
    socket.on('close', () => {
      peer.end(new Error(`worker ${worker} is gone`));
      if (this.#peers.get(worker) === peer) this.#peers.delete(worker);
    });
  }

  /**
   * To be called when this worker's own writes are held, and believed only as long as they are. Resolves when those of the
   * others are, too, each until its own cut or the cut's end as a whole. It may never resolve: others may have died.
   * @throws where one of them cannot be reached
   */
  async allHold(token: string, others: readonly number[]): Promise<void> {
    for (const worker of others) {
      const peer = this.#peers.get(worker);
      if (peer === undefined) throw new Error(`worker ${worker} cannot be reached`);
      peer.tell('held', { token });
    }
    const all = Promise.withResolvers<void>();
    this.#waiting = { token, others, all };
    this.#look();
    await all.promise;
  }

  #hear(worker: number, token: string): void {
    this.#heard.set(worker, token);
    this.#look();
  }

  #look(): void {
    if (this.#waiting === undefined) return;
    const { token, others, all } = this.#waiting;
    if (!others.every((worker) => this.#heard.get(worker) === token)) return;
    this.#waiting = undefined;
    all.resolve();
  }
}
