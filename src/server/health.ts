import type { Catalog } from '../catalog/catalog.ts';
import type { DataPlane } from '../dataplane/data-plane.ts';

const CHECK_MILLISECONDS = 2_000;

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
      check(this.#dataPlane.activity()),
    ]);
    const ready = this.#open && catalog === 'ok' && workers === 'ok';
    return { status: ready ? 'ready' : 'live', version: this.#version, checks: { catalog, workers } };
  }
}

async function check(work: Promise<unknown>): Promise<'ok' | string> {
  const late = Promise.withResolvers<string>();
  const timer = setTimeout(() => late.resolve(`no answer within ${CHECK_MILLISECONDS} ms`), CHECK_MILLISECONDS);
  const answered = work.then(
    () => 'ok',
    (error: Error) => error.message,
  );
  return Promise.race([answered, late.promise]).finally(() => clearTimeout(timer));
}
