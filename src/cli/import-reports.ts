import { setTimeout as sleep } from 'node:timers/promises';
import { type AdminClient, RefusedError, ServerAwayError } from '../admin/admin-client.ts';
import type { Captured, CaptureProgress } from '../snapshots/capture.ts';

/** Of an import of which nothing is heard for ten minutes, the server thinks that it is lost. */
const REPORT_MILLISECONDS = 30_000;
/** Between reports of one percent and the next. */
const LEAST_MILLISECONDS = 1_000;
/** A server that is upgraded, say, is back within this. */
const AWAY_MILLISECONDS = 5 * 60_000;
const RETRY_MILLISECONDS = 500;

type Import = {
  /** The server as it is now: where it has been started again, it may be at another address. */
  connect: () => AdminClient;
  snapshotId: string;
  signal: AbortSignal;
};

/**
 * Tells the server of an import from when it begins to when it has ended, so or so. While its bytes go to the object store
 * the server may be away; one that has given the import up (its snapshot was deleted) ends it.
 * @param work stores the bytes, and reports how far it has come; what it is told to heed ends it
 * @throws what the work has thrown; and when the server has given it up, or cannot be told of its end
 */
export async function reportingImport(
  { connect, snapshotId, signal }: Import,
  work: (signal: AbortSignal, report: (progress: CaptureProgress) => void) => Promise<Captured>,
): Promise<Captured> {
  const givenUp = new AbortController();
  let latest: CaptureProgress = { doneBlocks: 0, totalBlocks: 0, storedBytes: 0 };
  let [reported, reportedAt] = [latest, performance.now()];
  let reporting: Promise<void> | undefined;
  const report = async (): Promise<void> => {
    [reported, reportedAt] = [latest, performance.now()];
    try {
      await connect().ask('import-progress', { snapshotId, ...latest });
    } catch (error) {
      if (error instanceof RefusedError && error.code === 'InvalidSnapshot.NotFound') givenUp.abort(error);
    }
  };
  const timer = setInterval(() => {
    const silence = performance.now() - reportedAt;
    if (reporting !== undefined || (silence < REPORT_MILLISECONDS && percent(latest) === percent(reported))) return;
    reporting = report().finally(() => {
      reporting = undefined;
    });
  }, LEAST_MILLISECONDS);
  try {
    const captured = await work(AbortSignal.any([signal, givenUp.signal]), (progress) => {
      latest = progress;
    });
    clearInterval(timer);
    await reporting;
    const { root, dataBlocks, storedBytes } = captured;
    await untilBack(signal, () => connect().ask('finish-import', { snapshotId, root, dataBlocks, storedBytes }));
    return captured;
  } catch (error) {
    clearInterval(timer);
    const reason = (error as Error).message;
    // Where the server is away, it ends by itself for want of reports.
    await (async () => connect().ask('fail-import', { snapshotId, reason }))().catch(() => undefined);
    throw error;
  }
}

function percent({ doneBlocks, totalBlocks }: CaptureProgress): number {
  return Math.floor((doneBlocks / Math.max(1, totalBlocks)) * 100);
}

/** What only a server can be told waits for one. */
async function untilBack(signal: AbortSignal, tell: () => Promise<unknown>): Promise<void> {
  for (const begun = performance.now(); ; await sleep(RETRY_MILLISECONDS)) {
    try {
      await tell();
      return;
    } catch (error) {
      const mayPass = error instanceof ServerAwayError || (error instanceof RefusedError && error.mayPass);
      if (!mayPass || performance.now() - begun > AWAY_MILLISECONDS) throw error;
      signal.throwIfAborted();
    }
  }
}
