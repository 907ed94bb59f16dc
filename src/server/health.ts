import type { Catalog } from '../catalog/catalog.ts';
import type { DataPlane } from '../dataplane/data-plane.ts';
import { withDeadline } from '../types/deadline.ts';

/** A little longer than the workers have for theirs. */
const CHECK_MILLISECONDS = 3_000;

export type HealthReport = {
  /** `ready` takes work; `live` answers, and no more: it is starting, stopping, or something does not answer. */
  status: 'live' | 'ready';
  version: string;
  checks: { catalog: 'ok' | string; workers: 'ok' | string };
};

/**
 * Whether the server is alive, and whether it can work. An object store that is away does not count: guests go on
 * without it.
 */
export class Health {
  readonly #version: string;
  readonly #catalog: Catalog;
  readonly #dataPlane: DataPlane;
  #open = false;

  constructor(version: string, catalog: Catalog, dataPlane: DataPlane) {
    this.#version = version;
    this.#catalog = catalog;
    this.#dataPlane = dataPlane;
  }

  /** The doors are open, or closed. */
  setOpen(open: boolean): void {
    this.#open = open;
  }

  async report(): Promise<HealthReport> {
    const [catalog, workers] = await Promise.all([
      check(this.#catalog.selectFrom('users').select('user_name').limit(1).execute()),
      check(this.#askWorkers()),
    ]);
    const ready = this.#open && catalog === 'ok' && workers === 'ok';
    return { status: ready ? 'ready' : 'live', version: this.#version, checks: { catalog, workers } };
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
