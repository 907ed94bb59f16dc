/** Upper bounds of the latency histogram, in seconds; what took longer is in the last count, which has none. */
export const LATENCY_BOUNDS_SECONDS: readonly number[] = [
  0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5,
];

/** What clients asked of an export, and how long they waited; shared by all its connections. */
export type IoCounters = {
  reads: number;
  writes: number;
  readBytes: number;
  writtenBytes: number;
  flushes: number;
  /** Requests by how long they took, from the turn that brought them to their answer. */
  latencyCounts: number[];
  latencySeconds: number;
};

export function newIoCounters(): IoCounters {
  return {
    reads: 0,
    writes: 0,
    readBytes: 0,
    writtenBytes: 0,
    flushes: 0,
    latencyCounts: new Array<number>(LATENCY_BOUNDS_SECONDS.length + 1).fill(0),
    latencySeconds: 0,
  };
}

/** How many requests have been answered, of whatever kind. */
export function answeredRequests({ latencyCounts }: IoCounters): number {
  return latencyCounts.reduce((sum, count) => sum + count, 0);
}

/** Counts so many requests that all took as long. */
export function observeLatency(counters: IoCounters, milliseconds: number, requests: number): void {
  const seconds = milliseconds / 1000;
  let bucket = 0;
  while (bucket < LATENCY_BOUNDS_SECONDS.length && seconds > LATENCY_BOUNDS_SECONDS[bucket]) bucket += 1;
  counters.latencyCounts[bucket] += requests;
  counters.latencySeconds += seconds * requests;
}
