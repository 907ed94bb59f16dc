import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Neighbours } from '../../src/dataplane/neighbours.ts';
import { tool } from '../support/tools.ts';

const CHILDREN = `/proc/${process.ppid}/task/${process.ppid}/children`;

/** A machine of which one sets how its threads and processors were used, a tenth of a second after the other. */
class Machine {
  now = 0;
  readonly #files = new Map<string, string>();
  readonly #ran = new Map<number, number>();
  #idle = 0;
  readonly neighbours = new Neighbours(
    (path) => {
      const found = this.#files.get(path);
      if (found === undefined) throw new Error(`no ${path}`);
      return found;
    },
    () => this.now,
  );

  /** @param ran by process: the share of a processor that its first thread had @param idle processors */
  pass(milliseconds: number, ran: Record<number, number>, idle: number): number {
    this.now += milliseconds;
    this.#idle += idle * milliseconds;
    for (const [pid, share] of Object.entries(ran)) {
      const sum = (this.#ran.get(Number(pid)) ?? 0) + share * milliseconds;
      this.#ran.set(Number(pid), sum);
      this.#files.set(`/proc/${pid}/task/${pid}/schedstat`, `${Math.round(sum * 1e6)} 0 1\n`);
    }
    this.#files.set(CHILDREN, `${Object.keys(ran).join(' ')} `);
    this.#files.set('/proc/stat', `cpu  1 2 3 ${Math.round(this.#idle / 10)} 5 6 7 8 9 10\n`);
    return this.neighbours.busyShare();
  }

  forget(path: string): void {
    this.#files.delete(path);
  }
}

test('what the guests of other workers keep busy counts, where no processors are left for an upload', () => {
  const machine = new Machine();
  const own = process.pid;
  machine.pass(0, { [own]: 0, 7001: 0, 7002: 0 }, 0);
  assert.equal(machine.pass(100, { [own]: 1, 7001: 0, 7002: 0 }, 0), 0, 'its own guests are not others');
  const near = (share: number, wanted: number): void =>
    assert.ok(Math.abs(share - wanted) < 0.1, `${share}, not ${wanted}`);
  near(machine.pass(100, { [own]: 0, 7001: 0.5, 7002: 0 }, 0), 0.5);
  near(machine.pass(50, { [own]: 0, 7001: 0, 7002: 0 }, 0), 0.5);
  near(machine.pass(50, { [own]: 0, 7001: 0.5, 7002: 0.3 }, 0), 0.4);
  near(machine.pass(100, { [own]: 0, 7001: 0.9, 7002: 0.9 }, 0), 1);
  assert.equal(machine.pass(100, { [own]: 0, 7001: 0.15, 7002: 0 }, 0), 0, 'what their own uploads ask of them');
  near(machine.pass(100, { [own]: 0, 7001: 0.8, 7002: 0 }, 1.5), 0.4);
  assert.equal(machine.pass(100, { [own]: 0, 7001: 0.8, 7002: 0 }, 2), 0, 'there is room for both');
  // One that has just begun had run for long before anyone looked.
  machine.pass(0, { 7003: 100_000 }, 0);
  assert.equal(machine.pass(100, { [own]: 0, 7001: 0, 7003: 0 }, 0), 0);
  // And one that has ended between two looks is missed by nobody.
  machine.forget('/proc/7003/task/7003/schedstat');
  near(machine.pass(100, { [own]: 0, 7001: 0.7 }, 0), 0.7);
});

test('where the system does not say, nothing is known', () => {
  const machine = new Machine();
  machine.pass(0, { 7001: 0 }, 0);
  machine.pass(100, { 7001: 1 }, 0);
  machine.forget('/proc/stat');
  machine.now += 100;
  assert.equal(machine.neighbours.busyShare(), 0);
});

const NEIGHBOURS = new URL('../../src/dataplane/neighbours.ts', import.meta.url).href;
/** Two processes with one parent: one is busy, the other says what it sees of it, on a machine that has nothing to spare. */
const FAMILY = `
  import { spawn } from 'node:child_process';
  const busy = spawn(process.execPath, ['-e', 'for (;;);']);
  const looks = \`
    import { readFileSync } from 'node:fs';
    const { Neighbours } = await import('${NEIGHBOURS}');
    const neighbours = new Neighbours((path) => path === '/proc/stat' ? 'cpu 0 0 0 0' : readFileSync(path, 'latin1'));
    let most = 0;
    for (let look = 0; look < 40 && most < 0.3; look += 1) {
      most = Math.max(most, neighbours.busyShare());
      await new Promise((resolve) => setTimeout(resolve, 120));
    }
    console.log(most);
  \`;
  const looking = spawn(process.execPath, ['--input-type=module', '-e', looks], { stdio: 'inherit' });
  looking.on('exit', () => busy.kill('SIGKILL'));
`;

test('a real process is seen to be busy by its brother', {
  skip: process.platform !== 'linux' && 'needs Linux',
}, async () => {
  const share = Number(await tool(process.execPath, ['--input-type=module', '-e', FAMILY]));
  assert.ok(share >= 0.3, `${share}`);
});
