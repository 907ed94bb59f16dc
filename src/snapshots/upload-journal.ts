import type { PageMask } from '../types/page-mask.ts';
import type { Sha256 } from '../types/units.ts';
import { CutLostError } from '../volumes/cut.ts';
import type { DiskFile } from '../volumes/disk.ts';
import type { Encoding, PackId, RecordLocation } from './block-encoding.ts';

/** What was stored of a block: all of it, or a patch of what the base has. */
export type StoredRecord = { block: number; record: RecordLocation; pages: PageMask | undefined };

/** What was decided about some blocks of a cut, and is safe in the store. */
export type JournalRecord =
  | {
      kind: 'blocks';
      stored: StoredRecord[];
      /** All zeroes. */
      zero: number[];
      /** What the base has. */
      same: number[];
    }
  | { kind: 'leaf'; number: number; leaf: { node: Sha256; blocks: number } | undefined };

/** Where an upload writes down how far it has come, so that one cut short goes on from there. */
export interface UploadJournal {
  /** @throws CutLostError where what was written down cannot be believed */
  read(): JournalRecord[];
  /** Returns when the record outlives the process. (A power loss ends the cut too, so nothing need be synced.) */
  append(record: JournalRecord): void;
}

type Line =
  | { pack: string; stored: [number, number, number, number, string, string?][]; zero: number[]; same: number[] }
  | { leaf: number; node?: string; blocks?: number };

/** A journal in a file: one line of JSON for each record, appended with one write. */
export class FileJournal implements UploadJournal {
  readonly #file: DiskFile;
  #end = 0;

  constructor(file: DiskFile) {
    this.#file = file;
  }

  read(): JournalRecord[] {
    const records = this.records();
    // Lines that the disk has refused may be missing; blocks that they are of were not kept any more, and may be others.
    const refused = this.#file.writeBackError();
    if (refused === undefined) return records;
    throw new CutLostError(`The disk has refused what the upload had written down: ${refused.message}`);
  }

  /** What is in the file, for who only looks. (Whether the disk has refused any of it is told once, and is not for him.) */
  records(): JournalRecord[] {
    const bytes = Buffer.alloc(this.#file.size());
    this.#file.read(bytes, 0, bytes.length, 0);
    // A line without its end was cut short by a full disk: nothing was told of it, so it never was. The next goes over it.
    this.#end = bytes.lastIndexOf('\n') + 1;
    const lines = bytes.toString('utf8', 0, this.#end).split('\n').slice(0, -1);
    return lines.map((line) => fromLine(JSON.parse(line) as Line));
  }

  append(record: JournalRecord): void {
    const bytes = Buffer.from(`${JSON.stringify(toLine(record))}\n`);
    this.#file.write(bytes, 0, bytes.length, this.#end);
    this.#end += bytes.length;
  }

  close(): void {
    this.#file.close();
  }
}

/** For what is not taken up again: a journal that remembers nothing. */
export const NO_JOURNAL: UploadJournal = { read: () => [], append: () => undefined };

function toLine(record: JournalRecord): Line {
  if (record.kind === 'leaf') return { leaf: record.number, ...record.leaf };
  return {
    pack: record.stored[0]?.record.pack ?? '',
    stored: record.stored.map(({ block, record: { offset, length, encoding, sha256 }, pages }) => {
      const whole = [block, offset, length, encoding, sha256] as const;
      return pages === undefined ? [...whole] : [...whole, Buffer.from(pages).toString('hex')];
    }),
    zero: record.zero,
    same: record.same,
  };
}

function fromLine(line: Line): JournalRecord {
  if ('leaf' in line) {
    const { node, blocks } = line;
    const leaf = node === undefined || blocks === undefined ? undefined : { node: node as Sha256, blocks };
    return { kind: 'leaf', number: line.leaf, leaf };
  }
  return {
    kind: 'blocks',
    zero: line.zero,
    same: line.same,
    stored: line.stored.map(([block, offset, length, encoding, sha256, pages]) => ({
      block,
      pages: pages === undefined ? undefined : Uint8Array.from(Buffer.from(pages, 'hex')),
      record: {
        pack: line.pack as PackId,
        offset,
        length,
        encoding: encoding as Encoding,
        sha256: sha256 as Sha256,
      },
    })),
  };
}
