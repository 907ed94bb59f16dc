import { utimes } from 'node:fs/promises';
import type { Catalog } from '../catalog/catalog.ts';
import type { DataPlane } from '../dataplane/data-plane.ts';
import { withDeadline } from '../types/deadline.ts';

/** A little longer than the workers have for theirs. */
const CHECK_MILLISECONDS = 3_000;

export type HealthReport = {
  /** `ready` takes work; `live` answers, and no more: it is starting, stopping, or something does not answer. */
  status: 'live' | 'ready';
  version: string;
  checks: { catalog: 'ok' | string; disk: 'ok' | string; workers: 'ok' | string };
};

/**
 * Whether the server is alive, and whether it can work. An object store that is away does not count: guests go on
 * without it.
 */
export class Health {
  readonly #version: string;
  readonly #catalog: Catalog;
  readonly #dataPlane: DataPlane;
  readonly #file: string;
  #touching: Promise<void> | undefined;
  #open = false;

  /** @param file of the data directory, whose times are to be changed with each look */
  constructor(version: string, catalog: Catalog, dataPlane: DataPlane, file: string) {
    this.#version = version;
    this.#catalog = catalog;
    this.#dataPlane = dataPlane;
    this.#file = file;
  }

  /** The doors are open, or closed. */
  setOpen(open: boolean): void {
    this.#open = open;
  }

  async report(): Promise<HealthReport> {
    const [catalog, disk, workers] = await Promise.all([
      check(this.#catalog.selectFrom('users').select('user_name').limit(1).execute()),
      check(this.#touch()),
      check(this.#askWorkers()),
    ]);
    const checks = { catalog, disk, workers };
    const ready = this.#open && Object.values(checks).every((found) => found === 'ok');
    return { status: ready ? 'ready' : 'live', version: this.#version, checks };
  }

  /**
   * Something that a file system refuses once it has become read-only after an error, and reads do not notice. Asked again
   * only when it has answered: each question takes a thread, and there are four.
   */
  #touch(): Promise<void> {
    const now = new Date();
    this.#touching ??= utimes(this.#file, now, now).finally(() => {
      this.#touching = undefined;
    });
    return this.#touching;
  }

  async #askWorkers(): Promise<void> {
    const { silent } = await this.#dataPlane.activity();
    if (silent.length > 0) throw new Error(`no answer from worker ${silent.join(', ')}`);
  }
}

function check(work: Promise<unknown>): Promise<'ok' | string> {
  return withDeadline(CHECK_MILLISECONDS, 'the answer', work).then(
    () => 'ok',
    (error: Error) => error.message,
  );
}
