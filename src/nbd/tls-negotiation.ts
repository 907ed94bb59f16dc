import { acceptsFlags, greeting } from './greeting.ts';
import { optionReply } from './option-reply.ts';
import { MAGIC_OPTION, OPTION, OPTION_REPLY } from './protocol.ts';

const OPTION_HEADER_BYTES = 16;
const MAX_OPTION_BYTES = 4096;
const MAX_OPTIONS = 16;

export type NegotiationStep = { kind: 'more' } | { kind: 'end' } | { kind: 'start-tls'; clientFlags: number };

/** What is said before TLS: nothing, but that TLS is to be started. Bytes in, replies out. */
export class TlsNegotiation {
  readonly #send: (bytes: Buffer) => void;
  #input: Buffer = Buffer.alloc(0);
  #clientFlags: number | undefined;
  #options = 0;

  constructor(send: (bytes: Buffer) => void) {
    this.#send = send;
  }

  greet(): void {
    this.#send(greeting());
  }

  feed(bytes: Buffer): NegotiationStep {
    this.#input = Buffer.concat([this.#input, bytes]);
    if (this.#clientFlags === undefined) {
      if (this.#input.length < 4) return { kind: 'more' };
      const flags = this.#input.readUInt32BE(0);
      this.#input = this.#input.subarray(4);
      if (!acceptsFlags(flags)) return { kind: 'end' };
      this.#clientFlags = flags;
    }
    while (this.#input.length >= OPTION_HEADER_BYTES) {
      if (this.#input.readBigUInt64BE(0) !== MAGIC_OPTION) return { kind: 'end' };
      const option = this.#input.readUInt32BE(8);
      const length = this.#input.readUInt32BE(12);
      this.#options += 1;
      if (length > MAX_OPTION_BYTES || this.#options > MAX_OPTIONS) return { kind: 'end' };
      if (this.#input.length < OPTION_HEADER_BYTES + length) return { kind: 'more' };
      this.#input = this.#input.subarray(OPTION_HEADER_BYTES + length);
      const step = this.#answer(option, length, this.#clientFlags);
      if (step !== undefined) return step;
    }
    return { kind: 'more' };
  }

  #answer(option: number, length: number, clientFlags: number): NegotiationStep | undefined {
    switch (option) {
      case OPTION.ABORT:
        this.#send(optionReply(option, OPTION_REPLY.ACK));
        return { kind: 'end' };
      case OPTION.EXPORT_NAME:
        // It has no error reply.
        return { kind: 'end' };
      case OPTION.STARTTLS:
        if (length > 0) {
          this.#send(optionReply(option, OPTION_REPLY.ERR_INVALID));
          return undefined;
        }
        // Bytes that came before our answer were sent in the clear, perhaps by someone in between: they must not be
        // taken for what is said under TLS.
        if (this.#input.length > 0) return { kind: 'end' };
        this.#send(optionReply(option, OPTION_REPLY.ACK));
        return { kind: 'start-tls', clientFlags };
      default:
        this.#send(optionReply(option, OPTION_REPLY.ERR_TLS_REQD, Buffer.from('this server wants TLS: say STARTTLS')));
        return undefined;
    }
  }
}
