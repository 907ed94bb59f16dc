import { type ChildProcess, fork } from 'node:child_process';
import type { GatewaySettings } from '../nbd/gateway-settings.ts';

const RESTART_PAUSE_MILLISECONDS = 500;
/** Twice as long after each vain start, up to this. */
const LONGEST_RESTART_PAUSE_MILLISECONDS = 10_000;

/** The process that speaks TLS with NBD clients, started again when it dies. */
export class NbdGateway {
  readonly #settings: GatewaySettings;
  readonly #log: (level: 'error', message: string) => void;
  #child: ChildProcess | undefined;
  #port: number;
  #stopping = false;

  private constructor(settings: GatewaySettings, log: (level: 'error', message: string) => void) {
    this.#settings = settings;
    this.#log = log;
    this.#port = settings.port;
  }

  /** @throws when it cannot listen, or its certificates cannot be used */
  static async start(settings: GatewaySettings, log: (level: 'error', message: string) => void): Promise<NbdGateway> {
    const gateway = new NbdGateway(settings, log);
    gateway.#port = await gateway.#run();
    return gateway;
  }

  get port(): number {
    return this.#port;
  }

  async stop(): Promise<void> {
    this.#stopping = true;
    const child = this.#child;
    if (child === undefined || child.exitCode !== null) return;
    const exited = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGKILL');
    await exited;
  }

  async #run(): Promise<number> {
    const settings: GatewaySettings = { ...this.#settings, port: this.#port };
    const child = fork(new URL('../nbd/tls-gateway.ts', import.meta.url), {
      env: { ...process.env, CLEANCUT_NBD_TLS: JSON.stringify(settings) },
    });
    this.#child = child;
    const port = await new Promise<number>((resolve, reject) => {
      child.once('message', (message: { port?: number; failed?: string }) => {
        if (message.port !== undefined) resolve(message.port);
        else reject(new Error(`NBD over TLS cannot listen on ${settings.host}:${settings.port}: ${message.failed}`));
      });
      child.once('exit', () => reject(new Error('NBD over TLS could not be started; its message is above')));
      child.on('error', reject);
    }).catch((error: Error) => {
      // It may live on, and wait for nobody; the next one would be one more.
      child.kill('SIGKILL');
      throw error;
    });
    child.once('exit', (code, signal) => {
      if (!this.#stopping) void this.#restart(signal ?? String(code));
    });
    return port;
  }

  async #restart(cause: string, pause = RESTART_PAUSE_MILLISECONDS): Promise<void> {
    this.#log('error', `the NBD TLS gateway ended (${cause}); starting it again`);
    await new Promise((resolve) => setTimeout(resolve, pause));
    if (this.#stopping) return;
    await this.#run().catch((error: Error) => {
      this.#log('error', error.message);
      if (this.#stopping) return;
      void this.#restart('it could not be started', Math.min(2 * pause, LONGEST_RESTART_PAUSE_MILLISECONDS));
    });
  }
}
