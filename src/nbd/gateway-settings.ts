import { readFileSync, watchFile } from 'node:fs';
import type { SecureContextOptions } from 'node:tls';

/** How the TLS gateway is set up; in its environment, as JSON. */
export type GatewaySettings = {
  host: string;
  port: number;
  /** The unix socket behind which the server listens. */
  socket: string;
  connectionsPerClient: number;
  /** Files, PEM: the server's certificate and key, and the authority whose clients are let in. */
  cert?: string | undefined;
  key?: string | undefined;
  ca?: string | undefined;
  /** Lines `IDENTITY:HEXKEY`. */
  pskFile?: string | undefined;
};

const WATCH_MILLISECONDS = 2_000;
/** With forward secrecy where a certificate is there; the last are for clients that have nothing but a shared key. */
const CIPHERS = [
  'TLS_AES_256_GCM_SHA384',
  'TLS_AES_128_GCM_SHA256',
  'TLS_CHACHA20_POLY1305_SHA256',
  'ECDHE+AESGCM',
  'ECDHE+CHACHA20',
  'ECDHE-PSK-CHACHA20-POLY1305',
  'DHE-PSK-AES256-GCM-SHA384',
  'PSK-AES256-GCM-SHA384',
  'PSK-AES128-GCM-SHA256',
];

/** All that a context needs: one that is made anew, when a file has changed, keeps nothing of the last. */
export function secureContext({ cert, key, ca, pskFile }: GatewaySettings): SecureContextOptions {
  return {
    minVersion: 'TLSv1.2',
    // Shared keys under TLS 1.3 are not what NBD's clients and Node agree on; under 1.2 they are.
    ...(pskFile === undefined ? {} : { maxVersion: 'TLSv1.2' as const }),
    ciphers: CIPHERS.join(':'),
    ...(cert === undefined ? {} : { cert: readFileSync(cert) }),
    ...(key === undefined ? {} : { key: readFileSync(key) }),
    ...(ca === undefined ? {} : { ca: readFileSync(ca) }),
  };
}

/** Calls when any of the files has changed. */
export function watchFiles({ cert, key, ca, pskFile }: GatewaySettings, changed: () => void): void {
  for (const file of [cert, key, ca, pskFile]) {
    if (file !== undefined) watchFile(file, { interval: WATCH_MILLISECONDS, persistent: false }, changed);
  }
}
