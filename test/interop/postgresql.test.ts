import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import type { RestoredSet } from '../../src/admin/restore-set.ts';
import type { SetReport } from '../../src/admin/sets.ts';
import { createSnapshots, ended, launchInstance } from '../support/instances.ts';
import { type MountedVolume, mountExport } from '../support/mounted-volume.ts';
import { startTestServer } from '../support/server.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';
import { tool, withoutMounts } from '../support/tools.ts';

const VERSIONS = '/usr/lib/postgresql';
const BIN = existsSync(VERSIONS) ? `${VERSIONS}/${readdirSync(VERSIONS).sort().at(-1)}/bin` : '';
const LACKING = withoutMounts('nbdfuse', 'losetup', 'mkfs.ext4', 'runuser', BIN === '' ? 'postgres' : `${BIN}/initdb`);

/** A PostgreSQL whose data directory is on one volume and whose WAL is on another. */
class Database {
  readonly #data: MountedVolume;
  readonly #sockets: string;

  constructor(data: MountedVolume, sockets: string) {
    this.#data = data;
    this.#sockets = sockets;
  }

  async init(wal: MountedVolume): Promise<void> {
    for (const volume of [this.#data, wal]) await tool('chown', ['postgres', volume.path]);
    await this.#asPostgres('initdb', ['-D', `${this.#data.path}/pg`, '-X', `${wal.path}/wal`, '--auth=trust']);
  }

  async start(): Promise<void> {
    const options = `-c listen_addresses='' -c unix_socket_directories='${this.#sockets}' -c shared_buffers=32MB -c checkpoint_timeout=30s`;
    const log = `${this.#sockets}/log`;
    const start = ['-D', `${this.#data.path}/pg`, '-w', '-o', options, '-l', log, 'start'];
    await this.#asPostgres('pg_ctl', start).catch((error: Error) => {
      throw new Error(`${error.message}\n${readFileSync(log, 'utf8').slice(-2000)}`);
    });
  }

  async stop(): Promise<void> {
    await this.#asPostgres('pg_ctl', ['-D', `${this.#data.path}/pg`, '-m', 'fast', '-w', 'stop']);
  }

  async ask(sql: string): Promise<string> {
    return (await this.#asPostgres('psql', ['-h', this.#sockets, '-AtX', '-c', sql, 'postgres'])).trim();
  }

  async pgbench(...argv: string[]): Promise<string> {
    return this.#asPostgres('pgbench', ['-h', this.#sockets, ...argv, 'postgres']);
  }

  /** A session that is fed line by line. */
  session(): ChildProcess {
    return spawn('runuser', ['-u', 'postgres', '--', `${BIN}/psql`, '-h', this.#sockets, '-X', 'postgres'], {
      stdio: ['pipe', 'pipe', 'inherit'],
      cwd: '/',
    });
  }

  #asPostgres(program: string, argv: string[]): Promise<string> {
    return tool('runuser', ['-u', 'postgres', '--', `${BIN}/${program}`, ...argv], { PWD: '/' });
  }
}

/** Commits one number after the other, and knows which are acknowledged. */
class Committer {
  readonly #session: ChildProcess;
  #issued = 0;
  #acknowledged = 0;
  #stopping = false;

  constructor(database: Database) {
    this.#session = database.session();
    if (this.#session.stdout === null) throw new Error('no stdout');
    createInterface(this.#session.stdout).on('line', (line) => {
      if (line !== 'INSERT 0 1') return;
      this.#acknowledged = this.#issued;
      if (!this.#stopping) this.#next();
    });
    this.#next();
  }

  get issued(): number {
    return this.#issued;
  }

  get acknowledged(): number {
    return this.#acknowledged;
  }

  async stop(): Promise<void> {
    this.#stopping = true;
    this.#session.stdin?.end();
    await once(this.#session, 'exit');
  }

  #next(): void {
    this.#issued += 1;
    this.#session.stdin?.write(`INSERT INTO numbers VALUES (${this.#issued});\n`);
  }
}

test('PostgreSQL under load, data and WAL on two volumes: the restored set recovers with every acknowledged transaction', {
  skip: LACKING,
}, async (t) => {
  const directory = temporaryDirectory(t);
  chmodSync(directory, 0o755);
  mkdirSync(`${directory}/sockets`, { mode: 0o777 });
  chmodSync(`${directory}/sockets`, 0o777);
  const server = await startTestServer(t);
  const uri = (name: string): string => `nbd+unix:///${name}?socket=${server.nbdSocket}`;
  const instance = await launchInstance(server.ec2, [2, 1]);
  const data = await mountExport(directory, 'data', uri(instance.volumes[0]), true);
  const wal = await mountExport(directory, 'wal', uri(instance.volumes[1]), true);
  const database = new Database(data, `${directory}/sockets`);
  await database.init(wal);
  await database.start();
  await database.ask('CREATE TABLE numbers (n integer PRIMARY KEY)');
  await database.pgbench('-i', '-q', '-s', '4');

  const load = database.pgbench('-c', '4', '-T', '7', '--no-vacuum');
  const committer = new Committer(database);
  await new Promise((resolve) => setTimeout(resolve, 3000));
  const acknowledgedBefore = committer.acknowledged;
  const snapshots = await createSnapshots(server.ec2, instance.instanceId, {
    InstanceSpecification: { InstanceId: instance.instanceId, ExcludeBootVolume: true },
  });
  const issuedAfter = committer.issued;
  const report = await load;
  t.diagnostic(/tps = .*/.exec(report)?.[0] ?? '');
  await committer.stop();
  assert.ok(acknowledgedBefore > 20, 'the load was on');
  assert.ok(committer.acknowledged > issuedAfter, 'and went on after the cut');
  await database.stop();
  await data.unmount();
  await wal.unmount();

  for (const snapshot of await ended(server.ec2, snapshots))
    assert.equal(snapshot.State, 'completed', snapshot.StateMessage ?? '');
  const [set] = (await server.admin.ask<{ sets: SetReport[] }>('sets')).sets;
  const restored = await server.admin.ask<RestoredSet>('restore-set', { setId: set.setId });
  const copyOf = (volumeId: string): string => {
    const snapshotId = set.snapshots.find((each) => each.volumeId === volumeId)?.snapshotId;
    return restored.volumes.find((each) => each.snapshotId === snapshotId)?.volumeId ?? '';
  };
  // At the same place as before: the data directory names the WAL's path.
  for (const name of ['data', 'wal']) await tool('rm', ['-rf', `${directory}/${name}`, `${directory}/${name}.nbd`]);
  const dataCopy = await mountExport(directory, 'data', uri(copyOf(instance.volumes[0])), false);
  const walCopy = await mountExport(directory, 'wal', uri(copyOf(instance.volumes[1])), false);
  // The image is of a running server, with the lock file of its process, whose number may be someone else's by now.
  rmSync(`${dataCopy.path}/pg/postmaster.pid`);
  const recovered = new Database(dataCopy, `${directory}/sockets`);
  try {
    await recovered.start();
    const [count, greatest] = (await recovered.ask('SELECT count(*), max(n) FROM numbers')).split('|').map(Number);
    t.diagnostic(
      `${acknowledgedBefore} acknowledged before the call, ${greatest} in the set, ${issuedAfter} issued when it was answered`,
    );
    assert.equal(count, greatest, 'no transaction is missing in between');
    assert.ok(greatest >= acknowledgedBefore, 'every transaction acknowledged before the call is there');
    assert.ok(greatest <= issuedAfter, 'none issued after the answer is');
    const sums = await recovered.ask(
      'SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(bbalance) FROM pgbench_branches), (SELECT sum(tbalance) FROM pgbench_tellers), (SELECT sum(delta) FROM pgbench_history)',
    );
    const [accounts, branches, tellers, history] = sums.split('|');
    assert.deepEqual([branches, tellers, history], [accounts, accounts, accounts], 'the books balance');
    assert.ok(Number(await recovered.ask('SELECT count(*) FROM pgbench_history')) > 100);
    await recovered.stop();
  } finally {
    await dataCopy.unmount();
    await walCopy.unmount();
  }
});
