/**
 * Loaded into a server's processes before anything else (`--import`): kills the process, as `kill -9` would, when it
 * comes to a chosen point for the n-th time. The product knows nothing of it: its methods are wrapped from outside.
 *
 * CLEANCUT_TEST_KILL is `POINT N FILE`; the file is made in the moment of the kill, and while it is there nothing is
 * killed any more.
 */
import { closeSync, existsSync, openSync } from 'node:fs';
import { DataPlane } from '../../src/dataplane/data-plane.ts';
import { DirectoryStore } from '../../src/objects/directory-store.ts';
import type { DiskFile } from '../../src/volumes/disk.ts';
import { LocalVolume } from '../../src/volumes/local-volume.ts';
import { NodeDisk } from '../../src/volumes/node-disk.ts';

export const KILL_POINTS = [
  'after a dirty bit, before its data',
  'after old pages are kept, before the new data',
  'between the files of the next epoch',
  'in the cut, one volume done',
  'after the cut, before the catalog has it',
  'before a pack is stored',
  'after a pack is stored, before the journal says so',
  'after the packs, before a manifest node',
  'between two records of a set',
  'before a record is deleted',
  'after a record is deleted',
  'before a manifest node is collected',
  'before a pack is collected',
  'before a hydrated block is marked',
  'after a hydrated block is marked',
  "before a volume's files are removed",
] as const;
export type KillPoint = (typeof KILL_POINTS)[number];

const order = /^(.*) (\d+) (\S+)$/.exec(process.env.CLEANCUT_TEST_KILL ?? '');
if (order !== null) watch(order[1] as KillPoint, Number(order[2]), order[3]);

/** Two processes may come there in the same moment: one is killed, the other goes on, and must not take it for a failure. */
function isFirst(mark: string): boolean {
  try {
    closeSync(openSync(mark, 'wx'));
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  }
}

function watch(point: KillPoint, count: number, mark: string): void {
  let left = count;
  const reached = (): void => {
    left -= 1;
    if (left > 0 || existsSync(mark) || !isFirst(mark)) return;
    process.kill(process.pid, 'SIGKILL');
    // The signal comes when the kernel likes; until then nothing more may happen.
    for (;;) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1000);
  };
  switch (point) {
    case 'after a dirty bit, before its data':
      return onWrite(/epoch-\d+\.dirty$/, 'after', reached);
    case 'after old pages are kept, before the new data':
      return onWrite(/epoch-\d+\.staging$/, 'after', reached);
    case 'between the files of the next epoch':
      // The first one is a new volume's.
      return onCall(
        NodeDisk.prototype,
        'createLater',
        'after',
        (path) => /epoch-(?!0*1\.)\d+\.dirty$/.test(String(path)),
        reached,
      );
    case 'in the cut, one volume done':
      return onCall(LocalVolume.prototype, 'cut', 'after', () => true, reached);
    case 'after the cut, before the catalog has it':
      return onCall(DataPlane.prototype, 'cut', 'after', () => true, reached);
    case 'before a pack is stored':
      return onStore('put', 'before', /^packs\//, reached);
    case 'after a pack is stored, before the journal says so':
      return onStore('put', 'after', /^packs\//, reached);
    case 'after the packs, before a manifest node':
      return onStore('put', 'before', /^manifests\//, reached);
    case 'between two records of a set':
      return onStore('put', 'after', /^snapshots\//, reached);
    case 'before a record is deleted':
      return onStore('remove', 'before', /^snapshots\//, reached);
    case 'after a record is deleted':
      return onStore('remove', 'after', /^snapshots\//, reached);
    case 'before a manifest node is collected':
      return onStore('remove', 'before', /^manifests\//, reached);
    case 'before a pack is collected':
      return onStore('remove', 'before', /^packs\//, reached);
    case 'before a hydrated block is marked':
      return onWrite(/hydrated$/, 'before', reached);
    case 'after a hydrated block is marked':
      return onWrite(/hydrated$/, 'after', reached);
    case "before a volume's files are removed":
      return onCall(NodeDisk.prototype, 'removeLargeTree', 'before', () => true, reached);
    default:
      throw new Error(`${point satisfies never} is no point`);
  }
}

type When = 'before' | 'after';

function onStore(method: 'put' | 'remove', when: When, key: RegExp, reached: () => void): void {
  onCall(DirectoryStore.prototype, method, when, (given) => key.test(String(given)), reached);
}

/** Wraps a method; of one that answers later, `after` is when it has answered. */
function onCall<Name extends string>(
  prototype: Record<Name, unknown>,
  name: Name,
  when: When,
  matches: (first: unknown) => boolean,
  reached: () => void,
): void {
  const original = prototype[name] as (...given: unknown[]) => unknown;
  prototype[name] = function wrapped(this: unknown, ...given: unknown[]): unknown {
    if (!matches(given[0])) return original.apply(this, given);
    if (when === 'before') reached();
    const answer = original.apply(this, given);
    if (when === 'before') return answer;
    if (!(answer instanceof Promise)) {
      reached();
      return answer;
    }
    return answer.then((value: unknown) => {
      reached();
      return value;
    });
  };
}

/** Wraps the writes to files of one kind. */
function onWrite(file: RegExp, when: When, reached: () => void): void {
  const { open, createLater } = NodeDisk.prototype;
  const watched = (path: string, opened: DiskFile): DiskFile => {
    if (!file.test(path)) return opened;
    for (const name of ['write', 'writeAll'] as const) onCall(opened, name, when, () => true, reached);
    return opened;
  };
  NodeDisk.prototype.open = function wrapped(path, mode) {
    return watched(path, open.call(this, path, mode));
  };
  NodeDisk.prototype.createLater = async function wrapped(path, start, zeroBytes) {
    return watched(path, await createLater.call(this, path, start, zeroBytes));
  };
}
