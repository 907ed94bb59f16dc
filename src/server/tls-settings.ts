import { createSecureContext } from 'node:tls';
import { type GatewaySettings, secureContext } from '../nbd/gateway-settings.ts';
import { readPskFile } from '../nbd/psk-file.ts';
import { readTls, type TlsFiles } from '../wire/http-server.ts';
import type { Config } from './config.ts';

/** @throws with the settings that name them when the files cannot be used; to be asked before anything is started */
export function checkTlsFiles(config: Config): void {
  const tls = tlsFiles(config);
  const using = (flags: string, use: () => void): void => {
    try {
      use();
    } catch (error) {
      throw new Error(`${flags}: ${(error as Error).message}`);
    }
  };
  if (tls !== undefined) using('--tls-cert and --tls-key', () => createSecureContext(readTls(tls)));
  const nbd = nbdTls(config, '', 0);
  if (nbd === undefined) return;
  using('--nbd-tls-cert, --nbd-tls-key and --nbd-tls-ca', () => createSecureContext(secureContext(nbd)));
  using('--nbd-psk-file', () => readPskFile(nbd.pskFile));
}

/** @returns undefined where the API speaks plain HTTP (on the loopback alone) */
export function tlsFiles({ tlsCert, tlsKey }: Config): TlsFiles | undefined {
  return tlsCert === undefined || tlsKey === undefined ? undefined : { cert: tlsCert, key: tlsKey };
}

/** @returns undefined where NBD over TCP is plain (on the loopback alone) */
export function nbdTls(config: Config, socket: string, port: number): GatewaySettings | undefined {
  const { host, connectionsPerClient, nbdTlsCert, nbdTlsKey, nbdTlsCa, nbdPskFile } = config;
  if (nbdTlsCert === undefined && nbdPskFile === undefined) return undefined;
  return {
    host,
    port,
    socket,
    connectionsPerClient,
    cert: nbdTlsCert,
    key: nbdTlsKey,
    ca: nbdTlsCa,
    pskFile: nbdPskFile,
  };
}
