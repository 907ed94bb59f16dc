import { readFileSync } from 'node:fs';
import type { DiskFile } from '../volumes/disk.ts';
import { NodeDisk } from '../volumes/node-disk.ts';

/** What lies where below `--data-dir`. */
export type DataPaths = {
  catalog: string;
  credentials: string;
  nbdSocket: string;
  gatewaySocket: string;
  volumes: string;
  running: string;
  lock: string;
  auditLog: string;
  keyring: string;
  keyFile: string;
  reserve: string;
};

export function dataPaths(dataDir: string): DataPaths {
  return {
    catalog: `${dataDir}/catalog.sqlite`,
    credentials: `${dataDir}/credentials`,
    nbdSocket: `${dataDir}/nbd.sock`,
    /** Between the TLS gateway and the server. */
    gatewaySocket: `${dataDir}/nbd-tls.sock`,
    volumes: `${dataDir}/volumes`,
    running: `${dataDir}/running.json`,
    lock: `${dataDir}/lock`,
    auditLog: `${dataDir}/audit.log`,
    keyring: `${dataDir}/keyring.json`,
    /** Protects the keyring where the operator names nothing better. */
    keyFile: `${dataDir}/keyring.key`,
    /** See setReserveAside. */
    reserve: `${dataDir}/reserve`,
  };
}

/**
 * Takes the data directory for this process; the kernel gives it back when the process ends, however it ends.
 * @throws when another server has it
 */
export function takeDataDirectory(dataDir: string): DiskFile {
  const disk = new NodeDisk();
  try {
    disk.makeDirectory(dataDir);
    disk.makeDirectory(dataPaths(dataDir).volumes);
  } catch (error) {
    throw new Error(`--data-dir ${dataDir} cannot be used: ${(error as Error).message}`);
  }
  const path = dataPaths(dataDir).lock;
  const lock = disk.open(path, disk.exists(path) ? 'read-write' : 'create');
  if (lock.tryLock()) return lock;
  lock.close();
  throw new Error(`another cleancut server is using ${dataDir}; stop it, or choose another --data-dir`);
}

/** The kernel's name for this boot: another one than last time means that the page cache was lost. */
export function bootId(): string {
  return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
}
