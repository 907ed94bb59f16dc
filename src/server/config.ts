import { availableParallelism } from 'node:os';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { z } from 'zod';
import { isSameStore } from '../objects/open-store.ts';
import { type AccountId, parseAccountId } from '../types/ids.ts';
import { isLoopback } from './loopback.ts';

const port = z.coerce.number().int().min(0).max(65_535);

const REGION = /^[a-z]{2}(-[a-z]+)+-\d$/;

/** Every setting; a config file holds them in this form, as JSON. */
const Settings = z.strictObject({
  dataDir: z.string().min(1).default('./cleancut-data'),
  host: z.string().default('127.0.0.1'),
  port: port.default(8773),
  nbdPort: z.union([z.literal('off'), port]).default('off'),
  objectStore: z.string().optional(),
  /** Where archived snapshots go; without one there is no archive tier. */
  archiveStore: z.string().optional(),
  region: z.string().regex(REGION).default('us-east-1'),
  /** Further regions that the endpoint is; each has zones a, b and c. */
  moreRegions: z.array(z.string().regex(REGION)).default([]),
  zones: z.array(z.string()).min(1).optional(),
  accountId: z.string().default('000000000001'),
  workers: z.coerce.number().int().min(1).max(256).optional(),
  /** How long writes may be held for a cut. */
  holdDeadlineMs: z.coerce.number().int().min(10).max(60_000).default(1_000),
  /** Old pages of one volume kept for snapshots that are not stored yet; past this the snapshots end in `error`. */
  stagingLimitGib: z.coerce.number().positive().default(64),
  /** How long an upload goes on trying while the object store fails. */
  uploadPatienceHours: z.coerce.number().positive().default(24),
  /** AWS wants 15; 0 does not hinder a single user. */
  snapshotGapSeconds: z.coerce.number().min(0).default(0),
  pendingSnapshotsPerVolume: z.coerce.number().int().min(0).default(5),
  snapshotsPerAccount: z.coerce.number().int().min(0).default(100_000),
  /** API requests of one account; 0 lets all through. */
  requestsPerSecond: z.coerce.number().min(0).default(0),
  requestBurst: z.coerce.number().int().min(1).default(100),
  /** Files, PEM: with them the API speaks HTTPS. */
  tlsCert: z.string().optional(),
  tlsKey: z.string().optional(),
  /** Files: with them NBD over TCP is over TLS, for clients with a certificate of this authority, or a shared key. */
  nbdTlsCert: z.string().optional(),
  nbdTlsKey: z.string().optional(),
  nbdTlsCa: z.string().optional(),
  nbdPskFile: z.string().optional(),
  /** Whoever scrapes /metrics must send it (`Authorization: Bearer …`); without one, the loopback alone may. */
  metricsToken: z.string().min(16).optional(),
  /** From one address, at once: HTTP, and NBD over TLS. */
  connectionsPerClient: z.coerce.number().int().min(1).default(256),
  /** How often everything in the store is read and checked, and how fast; 0 days for never. */
  scrubDays: z.coerce.number().min(0).default(30),
  scrubMibPerSecond: z.coerce.number().positive().default(8),
  /** How often a copy of the catalog goes to the object store, and at a clean stop; 0 for never. */
  catalogBackupMinutes: z.coerce.number().min(0).default(60),
  /** Who did what; below the data directory by default. */
  auditLog: z.string().optional(),
  /** What protects the keyring: a file (default: one beside it), or a passphrase (never a flag: others can see those). */
  keyFile: z.string().optional(),
  keyPassphrase: z.string().min(8).optional(),
  /** KMS keys in a KMS instead of the keyring: `aws`, or the endpoint's URL. */
  kms: z.string().optional(),
  logLevel: z.enum(['debug', 'info', 'warn', 'error', 'silent']).default('info'),
});

export type Config = Omit<
  z.output<typeof Settings>,
  'accountId' | 'objectStore' | 'zones' | 'workers' | 'moreRegions'
> & {
  accountId: AccountId;
  objectStore: string;
  /** The default region first. */
  regions: ReadonlyMap<string, readonly string[]>;
  workers: number;
};

/** Settings that are lists; in the environment, separated by commas. */
const LISTS = new Set(['zones', 'moreRegions']);

/**
 * Puts the settings together: flags win over the environment (`CLEANCUT_DATA_DIR` …), that over the config file, that
 * over the defaults.
 * @throws with a message that names the setting and what is wrong with it
 */
export function readConfig(
  flags: Record<string, unknown>,
  environment: NodeJS.ProcessEnv,
  file: Record<string, unknown>,
): Config {
  const given: Record<string, unknown> = { ...file };
  for (const name of Object.keys(Settings.shape)) {
    const value = environment[`CLEANCUT_${name.replace(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase()}`];
    if (value !== undefined) given[name] = LISTS.has(name) ? value.split(',') : value;
    if (flags[name] !== undefined) given[name] = flags[name];
  }
  const parsed = Settings.safeParse(given);
  if (!parsed.success) throw new Error(`the settings cannot be used:\n${z.prettifyError(parsed.error)}`);
  const settings = parsed.data;
  const accountId = parseAccountId(settings.accountId);
  if (accountId === undefined) throw new Error(`accountId: '${settings.accountId}' must be twelve digits`);
  checkTransport(settings);
  const dataDir = path.resolve(settings.dataDir);
  const objectStore = settings.objectStore ?? pathToFileURL(path.join(dataDir, 'objects')).href;
  // Each would take the other's records for its own.
  if (settings.archiveStore !== undefined && isSameStore(settings.archiveStore, objectStore)) {
    throw new Error(`archiveStore: '${objectStore}' is the object store itself; give the archive a place of its own`);
  }
  return {
    ...settings,
    accountId,
    dataDir,
    objectStore,
    regions: new Map([
      [settings.region, settings.zones ?? zonesOf(settings.region)],
      ...settings.moreRegions.map((region): [string, string[]] => [region, zonesOf(region)]),
    ]),
    workers: settings.workers ?? Math.max(2, availableParallelism()),
  };
}

/** @throws with what to do, when something would go over a network in the clear, or only half is given */
function checkTransport(settings: z.output<typeof Settings>): void {
  const { host, tlsCert, tlsKey, nbdTlsCert, nbdTlsKey, nbdTlsCa, nbdPskFile } = settings;
  if ((tlsCert === undefined) !== (tlsKey === undefined)) {
    throw new Error('tlsCert and tlsKey go together: give both --tls-cert and --tls-key, or neither');
  }
  const x509 = [nbdTlsCert, nbdTlsKey, nbdTlsCa];
  if (x509.some((file) => file !== undefined) && x509.includes(undefined)) {
    throw new Error(
      'NBD over TLS with certificates takes all three of --nbd-tls-cert, --nbd-tls-key and --nbd-tls-ca: without the authority, no client could prove who it is',
    );
  }
  if (isLoopback(host)) return;
  if (tlsCert === undefined) {
    throw new Error(
      `host: '${host}' is not a loopback address, and the API would go over the network in the clear. Give --tls-cert and --tls-key (PEM files), or listen on 127.0.0.1.`,
    );
  }
  if (settings.nbdPort !== 'off' && nbdTlsCert === undefined && nbdPskFile === undefined) {
    throw new Error(
      `host: '${host}' is not a loopback address, and NBD would go over the network in the clear. Give --nbd-tls-cert, --nbd-tls-key and --nbd-tls-ca, or --nbd-psk-file; or --nbd-port off.`,
    );
  }
}

function zonesOf(region: string): string[] {
  return ['a', 'b', 'c'].map((letter) => `${region}${letter}`);
}
