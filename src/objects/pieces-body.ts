import { createHash } from 'node:crypto';
import { OutgoingMessage } from 'node:http';
import { Readable } from 'node:stream';

/** The body of one request: pieces that are sent as they lie, without one copy of them all. */
export class PiecesBody extends Readable {
  readonly bytes: number;
  readonly #pieces: readonly Uint8Array[];
  #next = 0;
  #request: OutgoingMessage | undefined;

  constructor(pieces: readonly Uint8Array[]) {
    super();
    this.#pieces = pieces.filter(({ byteLength }) => byteLength > 0);
    this.bytes = this.#pieces.reduce((sum, { byteLength }) => sum + byteLength, 0);
  }

  /** In hexadecimal: what a signed request says about its body. */
  sha256(): string {
    const hash = createHash('sha256');
    for (const piece of this.#pieces) hash.update(piece);
    return hash.digest('hex');
  }

  override _read(): void {
    this.push(this.#pieces[this.#next++] ?? null);
  }

  override pipe<To extends NodeJS.WritableStream>(request: To, options?: { end?: boolean }): To {
    if (request instanceof OutgoingMessage) this.#request = request;
    return super.pipe(request, options);
  }

  /**
   * When it resolves, nobody reads the pieces any more. To be asked when the answer is there: one that comes before all
   * was sent does not end the sending, and whoever would then write other bytes there would have them sent, too.
   * @throws where the answer was no answer to this body: it was never asked for, or the connection ended before its end
   */
  async sent(): Promise<void> {
    const request = this.#request;
    if (request === undefined) throw new Error('the object store answered without having asked for the object');
    if (!request.writableFinished && !request.closed) {
      await new Promise<void>((resolve) => request.once('finish', resolve).once('close', resolve));
    }
    if (!request.writableFinished) throw new Error('the object store hung up before it had all of the object');
  }

  /** Ends the request, if it is not done: nobody reads the pieces any more. */
  abandon(): void {
    if (this.#request?.writableFinished === false) this.#request.destroy();
    this.destroy();
  }
}
