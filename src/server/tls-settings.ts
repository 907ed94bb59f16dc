import type { GatewaySettings } from '../nbd/gateway-settings.ts';
import type { TlsFiles } from '../wire/http-server.ts';
import type { Config } from './config.ts';

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
