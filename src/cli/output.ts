import { SingleBar } from 'cli-progress';
import Table from 'cli-table3';
import { formatBytes } from '../types/units.ts';

/** Prints rows as a table for people, or the value as JSON for scripts. */
export function print(
  json: boolean | undefined,
  value: unknown,
  headings: string[],
  rows: (string | number)[][],
): void {
  if (json === true) {
    process.stdout.write(`${JSON.stringify(value, undefined, 2)}\n`);
    return;
  }
  for (const piece of tableOf(headings, rows)) process.stdout.write(`${piece}\n`);
}

/** cli-table3 takes time with the square of the rows: 100,000 would never end. */
const ROWS_AT_ONCE = 200;
const NO_TOP = { top: '', 'top-mid': '', 'top-left': '', 'top-right': '' };
const NO_BOTTOM = { bottom: '', 'bottom-mid': '', 'bottom-left': '', 'bottom-right': '' };

/** A table, from its top to its bottom, in pieces that are as wide as each other. */
function* tableOf(headings: string[], rows: readonly (string | number)[][]): Generator<string> {
  const widths = headings.map((heading, column) =>
    rows.reduce((widest, row) => Math.max(widest, String(row[column]).length), heading.length),
  );
  for (let from = 0; from === 0 || from < rows.length; from += ROWS_AT_ONCE) {
    const [isFirst, isLast] = [from === 0, from + ROWS_AT_ONCE >= rows.length];
    const table = new Table({
      head: isFirst ? headings : [],
      style: { head: [], border: [], compact: true },
      chars: { ...(isFirst ? {} : NO_TOP), ...(isLast ? {} : NO_BOTTOM) },
      // Left to itself, it knows better how wide the letters of other scripts are.
      ...(isFirst && isLast ? {} : { colWidths: widths.map((width) => width + 2) }),
    });
    table.push(...rows.slice(from, from + ROWS_AT_ONCE));
    yield table.toString();
  }
}

/** How far something has come whose end is not known. On stderr, where someone looks. */
export class ProgressBar {
  readonly #what: string;
  readonly #show: (value: number) => string;
  readonly #looks = process.stderr.isTTY === true;

  constructor(what: string, show: (value: number) => string) {
    this.#what = what;
    this.#show = show;
  }

  set(value: number): void {
    if (this.#looks) process.stderr.write(`\r${this.#what}: ${this.#show(value)}   `);
  }

  end(): void {
    if (this.#looks) process.stderr.write('\n');
  }
}

/** A progress bar in bytes, on stderr, so that stdout stays clean. Quiet where no one looks. */
export class ByteProgress {
  readonly #bar: SingleBar;

  constructor(what: string, totalBytes: number) {
    this.#bar = new SingleBar({
      format: `${what} [{bar}] {percentage}% {done} of {all}`,
      stream: process.stderr,
      noTTYOutput: false,
      hideCursor: true,
      clearOnComplete: false,
    });
    this.#bar.start(Math.max(1, totalBytes), 0, { done: formatBytes(0), all: formatBytes(totalBytes) });
  }

  set(doneBytes: number): void {
    this.#bar.update(Math.min(doneBytes, this.#bar.getTotal()), { done: formatBytes(doneBytes) });
  }

  /** Shows it while the work goes on: in the end it is full, or stands where the work has failed. */
  async during<Answer>(work: () => Promise<Answer>): Promise<Answer> {
    try {
      const answer = await work();
      this.#bar.update(this.#bar.getTotal(), { done: formatBytes(this.#bar.getTotal()) });
      return answer;
    } finally {
      // A bar that goes on keeps the process, and the terminal's cursor.
      this.#bar.stop();
    }
  }
}
