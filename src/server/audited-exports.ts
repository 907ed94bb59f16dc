import type { ExportDescription, ExportDirectory } from '../nbd/export.ts';

/** The exports of one client, which tells of each name that it asked for in vain: once, however it asks. */
export class AuditedExports implements ExportDirectory {
  readonly #exports: ExportDirectory;
  readonly #onRefused: (name: string) => void;
  readonly #refused = new Set<string>();

  constructor(exports: ExportDirectory, onRefused: (name: string) => void) {
    this.#exports = exports;
    this.#onRefused = onRefused;
  }

  list(): Promise<string[]> {
    return this.#exports.list();
  }

  async describe(name: string): Promise<ExportDescription | undefined> {
    const found = await this.#exports.describe(name);
    if (found === undefined && !this.#refused.has(name)) {
      this.#refused.add(name);
      this.#onRefused(name);
    }
    return found;
  }
}
