import koffi from 'koffi';
import { addressOf } from '../types/address.ts';
import { ConcurrencyLimit } from '../types/concurrency-limit.ts';

/**
 * The zstd that is inside Node, called directly (RFC 8878; "Explicit context" in zstd.h). `node:zlib` makes a context and a
 * result of fresh memory each time: to decompress a block took it three times as long, and to find out that a few KiB cannot
 * be compressed, ten times. Pointers go as numbers, as in src/encryption/page-cipher.ts.
 */
const zstd = koffi.load(null);
const newCompression = zstd.func('uintptr_t ZSTD_createCCtx()');
const freeCompression = zstd.func('size_t ZSTD_freeCCtx(uintptr_t context)');
const compress = zstd.func(
  'size_t ZSTD_compressCCtx(uintptr_t context, uintptr_t target, size_t room, uintptr_t source, size_t length, int level)',
);
const newDecompression = zstd.func('uintptr_t ZSTD_createDCtx()');
const freeDecompression = zstd.func('size_t ZSTD_freeDCtx(uintptr_t context)');
const decompress = zstd.func(
  'size_t ZSTD_decompressDCtx(uintptr_t context, uintptr_t target, size_t room, uintptr_t source, size_t length)',
);
const isError = zstd.func('unsigned int ZSTD_isError(size_t result)');
const errorName = zstd.func('const char *ZSTD_getErrorName(size_t result)');

const FASTEST = 1;
/** As many as a thread uses at once when it is in a hurry. */
const CONTEXTS_KEPT = 8;
/**
 * As many as the largest thread pool (that of an export) can work at. Who reads many blocks of a snapshot at once has more
 * of them, and koffi refuses calls of which 256 are under way.
 */
const CALLS_AT_ONCE = 16;

class Contexts {
  readonly #create: () => unknown;
  readonly #free: (context: number) => unknown;
  readonly #spare: number[] = [];

  constructor(create: () => unknown, free: (context: number) => unknown) {
    this.#create = create;
    this.#free = free;
  }

  take(): number {
    const context = this.#spare.pop() ?? Number(this.#create());
    if (context === 0) throw new Error('zstd got no memory for a context');
    return context;
  }

  giveBack(context: number): void {
    if (this.#spare.length < CONTEXTS_KEPT) this.#spare.push(context);
    else this.#free(context);
  }
}

const compressions = new Contexts(newCompression, freeCompression);
const decompressions = new Contexts(newDecompression, freeDecompression);

/** A target that has room for whatever is made of so many bytes (ZSTD_COMPRESSBOUND, rounded up). */
export function compressionRoom(length: number): number {
  return length + (length >>> 8) + 64 * 1024;
}

/**
 * Compresses into one frame, on the thread that calls.
 * @param target see compressionRoom
 * @returns how many bytes of it were filled
 * @throws ZstdError when there are too few
 */
export function compressNow(target: Uint8Array, source: Uint8Array, level = FASTEST): number {
  const context = compressions.take();
  try {
    const { length } = source;
    return filled(compress(context, addressOf(target), target.length, addressOf(source), length, level));
  } finally {
    compressions.giveBack(context);
  }
}

/**
 * Decompresses one frame, on the thread that calls.
 * @returns how many bytes of `target` were filled
 * @throws ZstdError when that is not a frame, or one of more bytes than `target` has
 */
export function decompressNow(target: Uint8Array, source: Uint8Array): number {
  const context = decompressions.take();
  try {
    return filled(decompress(context, addressOf(target), target.length, addressOf(source), source.length));
  } finally {
    decompressions.giveBack(context);
  }
}

/** The same, on the thread pool: nobody may read or write `target` meanwhile, or write `source`. */
export function compressInto(target: Uint8Array, source: Uint8Array): Promise<number> {
  return onThreadPool(compressions, target, source, (context, done) => {
    const { length } = source;
    compress.async(context, addressOf(target), target.length, addressOf(source), length, FASTEST, done);
  });
}

/**
 * Decompresses one frame, on the thread pool: nobody may read or write `target` meanwhile, or write `source`.
 * @returns how many bytes of `target` were filled
 * @throws ZstdError when that is not a frame, or one of more bytes than `target` has
 */
export function decompressInto(target: Uint8Array, source: Uint8Array): Promise<number> {
  return onThreadPool(decompressions, target, source, (context, done) => {
    decompress.async(context, addressOf(target), target.length, addressOf(source), source.length, done);
  });
}

type Done = (error: Error | null, result: number | bigint) => void;

const calls = new ConcurrencyLimit(CALLS_AT_ONCE);

function onThreadPool(
  contexts: Contexts,
  target: Uint8Array,
  source: Uint8Array,
  call: (context: number, done: Done) => void,
): Promise<number> {
  return calls.run(async () => {
    const context = contexts.take();
    // An address keeps nothing alive: these do, until the answer is there.
    const used = [target, source];
    try {
      const result = await new Promise<number | bigint>((resolve, reject) => {
        call(context, (error, answer) => (error === null ? resolve(answer) : reject(error)));
      });
      return filled(result);
    } finally {
      used.length = 0;
      contexts.giveBack(context);
    }
  });
}

function filled(result: number | bigint): number {
  if (isError(result) !== 0) throw new ZstdError(String(errorName(result)));
  return Number(result);
}

export class ZstdError extends Error {
  override name = 'ZstdError';
}
