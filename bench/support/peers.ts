/** The programs that cleancut is measured against, as they come with Debian. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { createInterface } from 'node:readline';

export type Peer = { uris: string[]; stop: () => Promise<void> };

/** @throws with what to install, before anything is begun */
export function requireTools(...names: string[]): void {
  const missing = names.filter((name) => {
    try {
      execFileSync('sh', ['-c', `command -v ${name}`], { stdio: 'ignore' });
      return false;
    } catch {
      return true;
    }
  });
  if (missing.length > 0) throw new Error(`this benchmark needs ${missing.join(', ')}: install the Debian packages`);
}

/** Sparse raw files, one for each volume. */
export function rawFiles(directory: string, name: string, count: number, sizeBytes: number): string[] {
  return Array.from({ length: count }, (_, index) => {
    const file = `${directory}/${name}-${index}.raw`;
    writeFileSync(file, '');
    truncateSync(file, sizeBytes);
    return file;
  });
}

/** nbdkit's file plugin, a process for each file. */
export function nbdkit(directory: string, files: readonly string[]): Promise<Peer> {
  return each(files, (file, index) => {
    const socket = `${directory}/nbdkit-${index}.sock`;
    return { socket, child: spawn('nbdkit', ['-f', '-U', socket, 'file', file], { stdio: 'ignore' }) };
  });
}

/** qemu-nbd with the page cache in use, a process for each file. */
export function qemuNbd(directory: string, files: readonly string[]): Promise<Peer> {
  return each(files, (file, index) => {
    const socket = `${directory}/qemu-${index}.sock`;
    const flags = ['-k', socket, '-f', 'raw', '--cache=writeback', '--persistent', '--shared=4', file];
    return { socket, child: spawn('qemu-nbd', flags, { stdio: 'ignore' }) };
  });
}

async function each(
  files: readonly string[],
  start: (file: string, index: number) => { socket: string; child: ChildProcess },
): Promise<Peer> {
  const started = files.map(start);
  await present(started.map(({ socket }) => socket));
  return {
    uris: started.map(({ socket }) => `nbd+unix:///?socket=${socket}`),
    async stop() {
      for (const { child } of started) await killed(child);
    },
  };
}

export type Qemu = Peer & {
  /** Backs all volumes up as of one instant: a `transaction` of `blockdev-backup`. Resolves when it has begun. */
  backUp: () => Promise<void>;
  /** Resolves when all backups have ended. */
  backedUp: () => Promise<void>;
};

/** qemu-storage-daemon with the files as exports, each with a raw file that a backup goes to. */
export async function qemuStorageDaemon(
  directory: string,
  files: readonly string[],
  targets: readonly string[],
): Promise<Qemu> {
  const [monitor, nbd] = [`${directory}/qmp.sock`, `${directory}/qsd.sock`];
  const flags = ['--chardev', `socket,path=${monitor},server=on,wait=off,id=m`, '--monitor', 'chardev=m'];
  flags.push('--nbd-server', `addr.type=unix,addr.path=${nbd},max-connections=0`);
  for (const [index, file] of files.entries()) {
    flags.push('--blockdev', `driver=raw,node-name=d${index},file.driver=file,file.filename=${file}`);
    flags.push('--blockdev', `driver=raw,node-name=t${index},file.driver=file,file.filename=${targets[index]}`);
    flags.push('--export', `type=nbd,id=e${index},node-name=d${index},name=d${index},writable=on`);
  }
  const child = spawn('qemu-storage-daemon', flags, { stdio: ['ignore', 'ignore', 'inherit'] });
  await present([monitor, nbd]);
  const qmp = new Qmp(connect(monitor));
  await qmp.ask('qmp_capabilities', {});
  let going = 0;
  return {
    uris: files.map((_, index) => `nbd+unix:///d${index}?socket=${nbd}`),
    async backUp() {
      const actions = files.map((_, index) => ({
        type: 'blockdev-backup',
        data: { 'job-id': `j${index}`, device: `d${index}`, target: `t${index}`, sync: 'full' },
      }));
      await qmp.ask('transaction', { actions });
      going = files.length;
    },
    async backedUp() {
      while (going > 0) {
        const jobs = (await qmp.ask('query-jobs', {})) as { status: string }[];
        going = jobs.filter(({ status }) => status !== 'concluded' && status !== 'null').length;
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    },
    async stop() {
      qmp.end();
      await killed(child);
      // Killed, it leaves them; the next of this directory makes its own.
      for (const socket of [monitor, nbd]) rmSync(socket, { force: true });
    },
  };
}

/** QEMU's monitor protocol: one JSON object a line. */
class Qmp {
  readonly #socket: Socket;
  readonly #waiting: PromiseWithResolvers<unknown>[] = [];

  constructor(socket: Socket) {
    this.#socket = socket;
    createInterface(socket).on('line', (line) => {
      const message = JSON.parse(line) as { return?: unknown; error?: { desc: string } };
      if (message.error !== undefined) this.#waiting.shift()?.reject(new Error(message.error.desc));
      else if ('return' in message) this.#waiting.shift()?.resolve(message.return);
    });
  }

  ask(execute: string, given: object): Promise<unknown> {
    const answer = Promise.withResolvers<unknown>();
    this.#waiting.push(answer);
    this.#socket.write(`${JSON.stringify({ execute, arguments: given })}\n`);
    return answer.promise;
  }

  end(): void {
    this.#socket.destroy();
  }
}

async function present(paths: readonly string[]): Promise<void> {
  for (const until = performance.now() + 10_000; !paths.every((path) => existsSync(path)); ) {
    if (performance.now() > until) throw new Error(`a peer did not make ${paths.join(', ')} in 10 s`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

async function killed(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exited = once(child, 'exit');
  child.kill('SIGKILL');
  await exited;
}
