/** Where a test, or a whole file of tests, is told what to do when it has ended. */
export type Cleanup = { after: (run: () => void) => void };

/** For what all tests of a file share: `after(() => file.run())` does it, the latest first. */
export class FileCleanup implements Cleanup {
  readonly #runs: (() => void)[] = [];

  after(run: () => void): void {
    this.#runs.push(run);
  }

  run(): void {
    for (const run of this.#runs.splice(0).reverse()) run();
  }
}
