import type { NbdListener } from '../nbd/listener.ts';
import type { HttpServer } from '../wire/http-server.ts';
import type { Config } from './config.ts';
import type { DataPaths } from './data-directory.ts';
import { NbdGateway } from './nbd-gateway.ts';
import { nbdTls } from './tls-settings.ts';

/** What lets clients in. */
type Doors = { http: HttpServer; nbd: NbdListener; log: (level: 'error', message: string) => void };

export type OpenDoors = {
  apiUrl: string;
  /** Of the unix socket, and of TCP where it is on. */
  nbdUris: string[];
  /** Lets nobody in any more; the API's calls under way are answered before it resolves. */
  close: () => Promise<void>;
};

/** Linux has room for so many, and a zero, in a socket's address. @see unix(7) */
const LONGEST_SOCKET_PATH_BYTES = 107;

/** @throws where no socket can have the path that NBD's would have; to be asked before anything is made */
export function checkSocketPaths(config: Config, paths: DataPaths): void {
  const isSecure = nbdTls(config, paths.gatewaySocket, 0) !== undefined;
  for (const path of isSecure ? [paths.nbdSocket, paths.gatewaySocket] : [paths.nbdSocket]) {
    const bytes = Buffer.byteLength(path);
    if (bytes <= LONGEST_SOCKET_PATH_BYTES) continue;
    throw new Error(
      `${path} has ${bytes} bytes, and a socket's path can have ${LONGEST_SOCKET_PATH_BYTES}; choose a shorter --data-dir, or give a symbolic link to it`,
    );
  }
}

/**
 * Opens NBD's doors first and the API's last: whoever can ask for a volume can have it.
 * @throws with the setting to change where one cannot be opened; then none is
 */
export async function openDoors(config: Config, paths: DataPaths, { http, nbd, log }: Doors): Promise<OpenDoors> {
  let gateway: NbdGateway | undefined;
  const close = async (): Promise<void> => {
    nbd.close();
    await gateway?.stop();
    await http.close();
  };
  try {
    await nbd.listenUnix(paths.nbdSocket);
    const nbdUris = [`nbd+unix:///?socket=${paths.nbdSocket}`];
    if (config.nbdPort !== 'off') {
      const secure = nbdTls(config, paths.gatewaySocket, config.nbdPort);
      if (secure !== undefined) {
        await nbd.listenGateway(paths.gatewaySocket);
        gateway = await NbdGateway.start(secure, log);
        nbdUris.push(`nbds://${inUrl(config.host)}:${gateway.port}`);
      } else {
        const listening = nbd.listenTcp(config.host, config.nbdPort);
        const port = await listening.catch(naming('NBD', config.host, config.nbdPort, '--nbd-port'));
        nbdUris.push(`nbd://${inUrl(config.host)}:${port}`);
      }
    }
    // What listens everywhere is reached from here by the loopback's name.
    const shownHost = config.host === '0.0.0.0' || config.host === '::' ? '127.0.0.1' : config.host;
    const listening = http.listen(config.host, config.port);
    const port = await listening.catch(naming('the API', config.host, config.port, '--port'));
    const scheme = config.tlsCert === undefined ? 'http' : 'https';
    return { apiUrl: `${scheme}://${inUrl(shownHost)}:${port}`, nbdUris, close };
  } catch (error) {
    await close();
    throw error;
  }
}

function inUrl(host: string): string {
  return host.includes(':') ? `[${host}]` : host;
}

/** Says of what the system says which door it is about, and what to do. */
function naming(what: string, host: string, port: number, flag: string): (error: NodeJS.ErrnoException) => never {
  return (error) => {
    const taken = error.code === 'EADDRINUSE' ? 'another process listens there; stop it, or choose' : 'choose';
    throw new Error(`${what} cannot listen on ${host}:${port} (${error.message}): ${taken} another ${flag}`);
  };
}
