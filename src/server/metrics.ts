import type { Catalog } from '../catalog/catalog.ts';
import { binnedApart, countBinned } from '../catalog/recycle-bin.ts';
import type { DataPlane } from '../dataplane/data-plane.ts';
import type { VolumeActivity } from '../dataplane/messages.ts';
import type { Lifecycle } from '../lifecycle/lifecycle.ts';
import { LATENCY_BOUNDS_SECONDS } from '../nbd/io-counters.ts';
import { addStoreFigures, type StoreFigures, type StoreOperation } from '../objects/measured-store.ts';
import { type Labels, MetricsText } from './metrics-text.ts';

const HOLD_BOUNDS_SECONDS = [0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1];
const API_BOUNDS_SECONDS = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30];

type Counted = { counts: number[]; sum: number };

export type MetricsSources = {
  catalog: Catalog;
  dataPlane: DataPlane;
  lifecycle: Lifecycle;
  storeFigures: StoreFigures;
};

/** What a Prometheus scrapes at `/metrics`. */
export class Metrics {
  readonly #sources: MetricsSources;
  readonly #calls = new Map<string, { labels: Labels; requests: number }>();
  readonly #latency = new Map<string, Counted>();
  readonly #holds: Counted = counted(HOLD_BOUNDS_SECONDS);

  constructor(sources: MetricsSources) {
    this.#sources = sources;
  }

  /** One API request was answered. @param code AWS's error code; empty where it went well */
  apiCall(service: string, code: string, seconds: number): void {
    const key = `${service} ${code}`;
    const calls = this.#calls.get(key) ?? { labels: { service, code: code === '' ? 'OK' : code }, requests: 0 };
    calls.requests += 1;
    this.#calls.set(key, calls);
    const latency = this.#latency.get(service) ?? counted(API_BOUNDS_SECONDS);
    this.#latency.set(service, latency);
    observe(latency, API_BOUNDS_SECONDS, seconds);
  }

  async text(): Promise<string> {
    const { catalog, dataPlane, lifecycle, storeFigures } = this.#sources;
    const text = new MetricsText();
    const [{ volumes, silent }, figures] = await Promise.all([dataPlane.activity(), dataPlane.storeFigures()]);
    volumeMetrics(text, volumes);
    text.metric('cleancut_workers_silent', 'gauge', 'Data-plane processes that do not answer.', [[{}, silent.length]]);
    for (const seconds of dataPlane.figures.holdSeconds.splice(0)) observe(this.#holds, HOLD_BOUNDS_SECONDS, seconds);
    text.histogram('cleancut_cut_hold_seconds', 'How long writes were held for a cut.', HOLD_BOUNDS_SECONDS, [
      [{}, this.#holds],
    ]);
    const { failedCuts, workerRestarts } = dataPlane.figures;
    text.metric('cleancut_cuts_failed_total', 'counter', 'Cuts that were not made.', [[{}, failedCuts]]);
    text.metric('cleancut_worker_restarts_total', 'counter', 'Data-plane processes that died.', [[{}, workerRestarts]]);
    const { count } = catalog.fn;
    for (const table of ['snapshots', 'volumes', 'instances'] as const) {
      const rows = await catalog
        .selectFrom(table)
        .select(['state', count<number>('state').as('number')])
        .groupBy('state')
        .execute();
      const states = Object.fromEntries(rows.map((row) => [row.state, Number(row.number)]));
      const shown = table === 'snapshots' ? binnedApart(states, await countBinned(catalog)) : states;
      const samples = Object.entries(shown).map(([state, number]): [Labels, number] => [{ state }, number]);
      text.metric(`cleancut_${table}`, 'gauge', `How many ${table} there are, by state.`, samples);
    }
    const moves = await catalog
      .selectFrom('snapshot_archives')
      .select(['operation', 'status', count<number>('snapshot_id').as('number')])
      .groupBy(['operation', 'status'])
      .execute();
    text.metric(
      'cleancut_snapshot_moves',
      'gauge',
      'Snapshots, by their last move to or from the archive.',
      moves.map(({ operation, status, number }): [Labels, number] => [{ operation, status }, Number(number)]),
    );
    const { snapshots, blocks } = lifecycle.snapshots.backlog();
    text.metric('cleancut_uploads_running', 'gauge', 'Snapshots that are being stored.', [[{}, snapshots]]);
    text.metric('cleancut_upload_backlog_blocks', 'gauge', 'Blocks of 512 KiB that they still have to store.', [
      [{}, blocks],
    ]);
    const scrub = lifecycle.scrubber.figures;
    text.metric('cleancut_scrub_runs_total', 'counter', 'Times that everything was read and checked.', [
      [{}, scrub.runs],
    ]);
    text.metric('cleancut_scrub_bytes_total', 'counter', 'Bytes that were read for it.', [[{}, scrub.bytes]]);
    text.metric('cleancut_scrub_damaged', 'gauge', 'Damaged things that the last one found.', [[{}, scrub.damaged]]);
    if (figures !== undefined) {
      addStoreFigures(figures, storeFigures);
      storeMetrics(text, figures);
    }
    const calls = [...this.#calls.values()].map(({ labels, requests }): [Labels, number] => [labels, requests]);
    text.metric('cleancut_api_requests_total', 'counter', 'API requests, by service and outcome.', calls);
    const latencies = [...this.#latency].map(([service, latency]): [Labels, Counted] => [{ service }, latency]);
    text.histogram('cleancut_api_request_seconds', 'How long API requests took.', API_BOUNDS_SECONDS, latencies);
    const { rss, heapUsed } = process.memoryUsage();
    text.metric('process_resident_memory_bytes', 'gauge', 'Of the server process alone.', [[{}, rss]]);
    text.metric('nodejs_heap_used_bytes', 'gauge', 'Of the server process alone.', [[{}, heapUsed]]);
    return text.toString();
  }
}

function volumeMetrics(text: MetricsText, activity: readonly VolumeActivity[]): void {
  const each = (value: (volume: VolumeActivity) => number): [Labels, number][] =>
    activity.map((volume) => [{ volume: volume.volumeId }, value(volume)]);
  const counter = (name: string, help: string, value: (volume: VolumeActivity) => number): void =>
    text.metric(`cleancut_volume_${name}`, 'counter', help, each(value));
  const gauge = (name: string, help: string, value: (volume: VolumeActivity) => number): void =>
    text.metric(`cleancut_volume_${name}`, 'gauge', help, each(value));
  counter('reads_total', 'Read requests.', (volume) => volume.reads);
  counter('writes_total', 'Write requests.', (volume) => volume.writes);
  counter('read_bytes_total', 'Bytes read.', (volume) => volume.readBytes);
  counter('written_bytes_total', 'Bytes written.', (volume) => volume.writtenBytes);
  counter('flushes_total', 'Flushes.', (volume) => volume.flushes);
  gauge('connections', 'NBD clients.', (volume) => volume.connections);
  gauge('staged_bytes', 'Old pages kept for snapshots that are not stored yet.', (volume) => volume.stagedBytes);
  gauge('faulted', '1 where the disk has refused a sync, and the volume every request since.', (volume) =>
    volume.fault === undefined ? 0 : 1,
  );
  gauge('hydrated_ratio', 'How much of a restored volume is local.', (volume) => volume.hydratedBlocks / volume.blocks);
  text.histogram(
    'cleancut_volume_request_seconds',
    'From the arrival of a request to its answer.',
    LATENCY_BOUNDS_SECONDS,
    activity.map((volume) => [
      { volume: volume.volumeId },
      { counts: volume.latencyCounts, sum: volume.latencySeconds },
    ]),
  );
}

function storeMetrics(text: MetricsText, figures: StoreFigures): void {
  const each = (value: (figure: StoreFigures[StoreOperation]) => number): [Labels, number][] =>
    (Object.keys(figures) as StoreOperation[]).map((operation) => [{ operation }, value(figures[operation])]);
  const counter = (name: string, help: string, value: (figure: StoreFigures[StoreOperation]) => number): void =>
    text.metric(`cleancut_object_store_${name}`, 'counter', help, each(value));
  counter('requests_total', 'Requests to the object store.', ({ requests }) => requests);
  counter('errors_total', 'Those that failed (most are tried again).', ({ errors }) => errors);
  counter('bytes_total', 'Bytes put and got.', ({ bytes }) => bytes);
}

function counted(bounds: readonly number[]): Counted {
  return { counts: new Array<number>(bounds.length + 1).fill(0), sum: 0 };
}

function observe(counted: Counted, bounds: readonly number[], seconds: number): void {
  const bucket = bounds.findIndex((bound) => seconds <= bound);
  counted.counts[bucket === -1 ? bounds.length : bucket] += 1;
  counted.sum += seconds;
}
