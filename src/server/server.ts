import { renameSync, rmSync, writeFileSync } from 'node:fs';
import { pino } from 'pino';
import { AdminEndpoint } from '../admin/admin-endpoint.ts';
import { Tokens } from '../api/ebs/tokens.ts';
import type { Services } from '../api/operation.ts';
import { ensureAdministrator } from '../auth/administrator.ts';
import { Users } from '../auth/users.ts';
import { openCatalog } from '../catalog/catalog.ts';
import { regionsInUse } from '../catalog/regions.ts';
import { seedImage } from '../catalog/seed-image.ts';
import { DataPlane } from '../dataplane/data-plane.ts';
import { Lifecycle } from '../lifecycle/lifecycle.ts';
import { StoreOwner, StrangeStoreError } from '../lifecycle/store-owner.ts';
import { VolumeOpenings } from '../lifecycle/volume-openings.ts';
import { NbdListener } from '../nbd/listener.ts';
import { MeasuredStore } from '../objects/measured-store.ts';
import { openObjectStore } from '../objects/open-store.ts';
import { withDeadline } from '../types/deadline.ts';
import { HttpServer } from '../wire/http-server.ts';
import { AuditLog } from './audit-log.ts';
import { AuditedExports } from './audited-exports.ts';
import { removeUnfinishedCopies, saveCatalog } from './catalog-backup.ts';
import type { Config } from './config.ts';
import { bootId, dataPaths, takeDataDirectory } from './data-directory.ts';
import { checkSocketPaths, type OpenDoors, openDoors } from './doors.ts';
import { EbsEndpoint } from './ebs-endpoint.ts';
import { Ec2Endpoint } from './ec2-endpoint.ts';
import { CatalogExports, scopeOf } from './export-directory.ts';
import { Gateway } from './gateway.ts';
import { Health } from './health.ts';
import { Metrics } from './metrics.ts';
import { openDataKeys, openSecretBox } from './open-keys.ts';
import { RecycleBinEndpoint } from './recycle-bin-endpoint.ts';
import { releaseReserve, setReserveAside } from './reserve.ts';
import { StsEndpoint } from './sts-endpoint.ts';
import { Throttle } from './throttle.ts';
import { checkTlsFiles, tlsFiles } from './tls-settings.ts';
import { readVersion } from './version.ts';

const GIB = 1024 ** 3;
const MIB = 1024 ** 2;
const HOUR_MILLISECONDS = 3_600_000;
const TIDY_MILLISECONDS = 60_000;
const SAVE_MILLISECONDS = 10_000;
/** How long a start waits for the object store. */
const STORE_MILLISECONDS = 5_000;

export type RunningServer = {
  apiUrl: string;
  /** Of the unix socket, and of TCP where it is on. */
  nbdUris: string[];
  credentialsFile: string;
  stop: () => Promise<void>;
};

/** What the CLI finds in the data directory while a server runs. */
export type RunningFile = {
  pid: number;
  apiUrl: string;
  region: string;
  objectStore: string;
  /** Of an API that speaks HTTPS. */
  certificate?: string | undefined;
  keyFile?: string | undefined;
  kms?: string | undefined;
};

/**
 * Puts a server together and starts it: the catalog, the data plane, what was going on before; then the doors open.
 * @throws with what to do next when something stands in the way
 */
export async function startServer(config: Config): Promise<RunningServer> {
  const paths = dataPaths(config.dataDir);
  checkSocketPaths(config, paths);
  checkTlsFiles(config);
  const lock = takeDataDirectory(config.dataDir);
  releaseReserve(paths.reserve);
  // Logs go to stderr; stdout has the one line that says the server is ready.
  const stderr = pino.destination(2);
  // A log that cannot be written (its disk is full) must not end the server.
  stderr.on('error', () => undefined);
  const logger = pino({ level: config.logLevel }, stderr);
  const log: Services['log'] = (level, message) => logger[level](message);
  const store = new MeasuredStore(await openObjectStore(config.objectStore));
  const archive = config.archiveStore === undefined ? undefined : await openObjectStore(config.archiveStore);
  removeUnfinishedCopies(paths.catalog);
  const catalog = await openCatalog(paths.catalog);
  await withDeadline(STORE_MILLISECONDS, 'its answer', new StoreOwner(catalog, store).refuseStranger()).catch(
    (error: Error) => {
      // One that is away must not keep the volumes from their guests.
      if (error instanceof StrangeStoreError) throw error;
      log('warn', `whether ${store.url} is the object store of before cannot be told: ${error.message}`);
    },
  );
  const now = (): Date => new Date();
  const keys = await openDataKeys(config, catalog, store);
  const box = await openSecretBox(config, catalog);
  const users = new Users(catalog, box, now);
  await users.sealPlainSecrets();
  const shutOut = await ensureAdministrator(users, config.accountId, paths.credentials, config.region);
  if (shutOut.length > 0) {
    const whose = shutOut.join(', ');
    log('warn', `keys were sealed under another key file and are of no use; 'cleancut user rotate' them: ${whose}`);
  }
  for (const [index, region] of [...config.regions.keys()].entries()) {
    await seedImage(catalog, config.accountId, region, index, now());
  }
  const outOfReach = (await regionsInUse(catalog)).filter((region) => !config.regions.has(region));
  if (outOfReach.length > 0) {
    const which = outOfReach.join(',');
    log('warn', `what is in ${which} is there, and cannot be asked for: give --more-regions ${which}, or --region`);
  }

  const openings = new VolumeOpenings(catalog, keys);
  const dataPlane = new DataPlane({
    settings: {
      volumesDirectory: paths.volumes,
      objectStore: config.objectStore,
      archiveStore: config.archiveStore,
      bootId: bootId(),
      stagingLimitBytes: config.stagingLimitGib * GIB,
      uploadPatienceMilliseconds: config.uploadPatienceHours * HOUR_MILLISECONDS,
    },
    workers: config.workers,
    openingsOf: (volumeIds, known) => openings.of(volumeIds, known),
    onProgress: (snapshotId, progress) => lifecycle.reportProgress(snapshotId, progress),
    onCutLost: ({ volumeId, boundary }, reason) => {
      lifecycle.snapshots
        .failCut(volumeId, boundary, reason)
        .catch((error: Error) => log('error', `${volumeId}: ${error.message}`));
    },
    onWorkerBack: () => {
      lifecycle.finishBegun().catch((error: Error) => log('warn', `after a worker came back: ${error.message}`));
    },
    log: ({ level, message }) => log(level, message),
  });
  const lifecycle = new Lifecycle(
    { catalog, dataPlane, store, archive, keys, now, log },
    { everyDays: config.scrubDays, bytesPerSecond: config.scrubMibPerSecond * MIB },
  );
  const services: Services = {
    catalog,
    dataPlane,
    lifecycle,
    store,
    hasArchive: archive !== undefined,
    keys,
    regions: config.regions,
    operatorAccount: config.accountId,
    limits: {
      snapshotGapSeconds: config.snapshotGapSeconds,
      pendingSnapshotsPerVolume: config.pendingSnapshotsPerVolume,
      snapshotsPerAccount: config.snapshotsPerAccount,
    },
    now,
    log,
    holdDeadlineMilliseconds: config.holdDeadlineMs,
    users,
    denials: box,
  };
  const audit = new AuditLog(config.auditLog ?? paths.auditLog, config.accountId, config.region, now, (error) =>
    log('error', `a record of the audit log is lost: ${error.message}`),
  );
  const health = new Health(readVersion(), catalog, dataPlane, paths.lock);
  const metrics = new Metrics({ catalog, dataPlane, lifecycle, storeFigures: store.figures });
  const door = new Gateway(
    services,
    new Ec2Endpoint(services),
    new EbsEndpoint(services, await Tokens.open(catalog, now)),
    new RecycleBinEndpoint(services),
    new StsEndpoint(services),
    new AdminEndpoint(services),
    new Throttle(config.requestsPerSecond, config.requestBurst, () => performance.now()),
    audit,
    health,
    metrics,
    config.metricsToken,
  );
  const http = new HttpServer(
    (request) => door.handle(request),
    (error) => door.refuse(error),
    { tls: tlsFiles(config), connectionsPerClient: config.connectionsPerClient },
  );
  const exports = new CatalogExports(catalog, dataPlane, keys);
  const nbd = new NbdListener(
    ({ identity, transport, address }) => {
      const own = identity === undefined ? exports : exports.scopedTo(scopeOf(identity));
      return new AuditedExports(own, (exportName) => {
        audit.connection({ exportName, identity, transport, sourceAddress: address, refused: true });
      });
    },
    (socket, accepted, { identity, transport, address }) => {
      const { exportName } = accepted;
      const own = identity === undefined ? exports : exports.scopedTo(scopeOf(identity));
      own
        .find(exportName)
        .then((target) => {
          const refused = target === undefined;
          audit.connection({ exportName, identity, transport, sourceAddress: address, refused });
          if (refused) socket.destroy();
          else dataPlane.serve(target, accepted, socket);
        })
        // The server stops just now, and the catalog is closed.
        .catch(() => socket.destroy());
    },
  );

  const begin = async (): Promise<OpenDoors> => {
    await dataPlane.ready();
    await lifecycle.recover();
    return openDoors(config, paths, { http, nbd, log });
  };
  const doors = await begin().catch(async (error: Error) => {
    // The workers would keep this process, and it the data directory, for nobody.
    await dataPlane.stop();
    throw error;
  });
  health.setOpen(true);
  const running: RunningFile = {
    pid: process.pid,
    apiUrl: doors.apiUrl,
    region: config.region,
    objectStore: config.objectStore,
    certificate: config.tlsCert,
    keyFile: config.keyFile,
    kms: config.kms,
  };
  try {
    // Under another name first: a verb that looks for the server now must not read half of it.
    writeFileSync(`${paths.running}.new`, `${JSON.stringify(running)}\n`, { mode: 0o600 });
    renameSync(`${paths.running}.new`, paths.running);
  } catch (error) {
    // Its guests can do without the CLI.
    log('error', `the CLI will not find this server: ${(error as Error).message}`);
  }
  void setReserveAside(paths.reserve);
  const tidying = setInterval(() => {
    void lifecycle.tidy();
    void setReserveAside(paths.reserve);
    void users.forgetExpiredSessions().catch((error: Error) => log('warn', `tidying up: ${error.message}`));
  }, TIDY_MILLISECONDS);
  const saveEvery = config.catalogBackupMinutes * 60_000;
  const saving = saveEvery === 0 ? undefined : setInterval(() => void saveNow().catch(warnUnsaved), saveEvery);
  const saveNow = async (): Promise<void> => {
    // Another server's copies would be taken for this one's, and the oldest of them removed.
    await lifecycle.storeOwner.require();
    await saveCatalog(paths.catalog, store, now());
  };
  const warnUnsaved = (error: Error): void => log('warn', `the catalog could not be saved: ${error.message}`);
  const reopenLogs = (): void => {
    try {
      audit.reopen();
    } catch (error) {
      log('error', `the audit log cannot be opened anew, and goes on in the old file: ${(error as Error).message}`);
    }
  };
  process.on('SIGHUP', reopenLogs);

  return {
    apiUrl: doors.apiUrl,
    nbdUris: doors.nbdUris,
    credentialsFile: paths.credentials,
    async stop() {
      clearInterval(tidying);
      clearInterval(saving);
      health.setOpen(false);
      // First the calls under way are answered, then the volumes are closed, then the catalog.
      await doors.close();
      await dataPlane.stop();
      // An object store that is away must not keep the server from stopping.
      if (saving !== undefined) await withDeadline(SAVE_MILLISECONDS, 'the store', saveNow()).catch(warnUnsaved);
      await catalog.destroy();
      audit.close();
      process.off('SIGHUP', reopenLogs);
      rmSync(paths.nbdSocket, { force: true });
      rmSync(paths.gatewaySocket, { force: true });
      rmSync(paths.running, { force: true });
      lock.close();
    },
  };
}
