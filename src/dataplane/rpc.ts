import type { Socket } from 'node:net';

/** One end of a pipe between processes or threads. A socket goes with one message. */
export type Channel = {
  post: (messages: readonly RpcMessage[], socket?: Socket) => void;
  onMessages: (receive: (messages: readonly RpcMessage[], socket?: Socket) => void) => void;
};

/** Functions of one argument that the other side may call. */
// biome-ignore lint/suspicious/noExplicitAny: a method's own type stands in each table; this is only their common shape.
export type Methods = { [name: string]: (argument: any, socket?: Socket) => unknown };

export type RpcMessage =
  | { kind: 'call'; id: number; method: string; argument: unknown }
  | { kind: 'tell'; method: string; argument: unknown }
  | { kind: 'answer'; id: number; value: unknown }
  | { kind: 'failure'; id: number; name: string; message: string; code: string | undefined };

type Argument<Table extends Methods, Name extends keyof Table> = Parameters<Table[Name]>[0];

/**
 * Calls and answers over a channel, in both directions. A failure on the other side is thrown here as an error of the
 * same name, message and code.
 */
export class RpcPeer<Remote extends Methods> {
  readonly #channel: Channel;
  readonly #waiting = new Map<number, PromiseWithResolvers<unknown>>();
  /** What is said in one turn goes out together: a set has sixteen captures, and each would wake the other side. */
  #outgoing: RpcMessage[] = [];
  #nextId = 1;
  #ended: Error | undefined;

  constructor(channel: Channel, local: Methods) {
    this.#channel = channel;
    channel.onMessages((messages, socket) => {
      for (const message of messages) this.#receive(message, local, socket);
    });
  }

  call<Name extends keyof Remote & string>(
    method: Name,
    argument: Argument<Remote, Name>,
    socket?: Socket,
  ): Promise<Awaited<ReturnType<Remote[Name]>>> {
    if (this.#ended !== undefined) return Promise.reject(this.#ended);
    const id = this.#nextId++;
    const waiting = Promise.withResolvers<unknown>();
    this.#waiting.set(id, waiting);
    this.#post({ kind: 'call', id, method, argument }, socket);
    return waiting.promise as Promise<Awaited<ReturnType<Remote[Name]>>>;
  }

  /** A call without an answer. */
  tell<Name extends keyof Remote & string>(method: Name, argument: Argument<Remote, Name>, socket?: Socket): void {
    if (this.#ended === undefined) this.#post({ kind: 'tell', method, argument }, socket);
  }

  get ended(): boolean {
    return this.#ended !== undefined;
  }

  /** The other side is gone: calls under way, and all later ones, fail with this. */
  end(reason: Error): void {
    this.#ended ??= reason;
    for (const waiting of this.#waiting.values()) waiting.reject(reason);
    this.#waiting.clear();
  }

  #receive(message: RpcMessage, local: Methods, socket: Socket | undefined): void {
    switch (message.kind) {
      case 'call':
        void this.#answer(message.id, async () => local[message.method](message.argument, socket));
        break;
      case 'tell':
        local[message.method](message.argument, socket);
        break;
      case 'answer':
        this.#take(message.id)?.resolve(message.value);
        break;
      case 'failure': {
        const { name, code } = message;
        this.#take(message.id)?.reject(Object.assign(new Error(message.message), { name, code }));
        break;
      }
      default:
        message satisfies never;
    }
  }

  #post(message: RpcMessage, socket?: Socket): void {
    if (socket !== undefined) {
      this.#send();
      this.#channel.post([message], socket);
      return;
    }
    this.#outgoing.push(message);
    if (this.#outgoing.length === 1) queueMicrotask(() => this.#send());
  }

  #send(): void {
    if (this.#outgoing.length === 0) return;
    const messages = this.#outgoing;
    this.#outgoing = [];
    this.#channel.post(messages);
  }

  #take(id: number): PromiseWithResolvers<unknown> | undefined {
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    return waiting;
  }

  async #answer(id: number, run: () => Promise<unknown>): Promise<void> {
    try {
      const value = await run();
      this.#post({ kind: 'answer', id, value });
    } catch (failure) {
      const { name, message, code } = failure as NodeJS.ErrnoException;
      this.#post({ kind: 'failure', id, name, message, code });
    }
  }
}
