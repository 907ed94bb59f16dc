import { existsSync } from 'node:fs';
import type { ObjectStore } from '../objects/object-store.ts';
import type { PackId } from '../snapshots/block-encoding.ts';
import { ENCODING } from '../snapshots/block-encoding.ts';
import { decodeBranch, decodeLeaf, isLeaf, isSealed, nodeKey, referencesOf } from '../snapshots/manifest-node.ts';
import { packKey, readPackIndex } from '../snapshots/pack.ts';
import { FileJournal } from '../snapshots/upload-journal.ts';
import { type PageMask, runsOf } from '../types/page-mask.ts';
import { BLOCK_BYTES, formatBytes, PAGE_BYTES, type Sha256 } from '../types/units.ts';
import { BitmapFile, readBitmapHeader } from '../volumes/bitmap-file.ts';
import { NodeDisk } from '../volumes/node-disk.ts';
import { StagingLog } from '../volumes/staging-log.ts';
import { chosenStore, type StoreFlags } from './images.ts';
import { SnapshotKeys } from './keys.ts';
import { namedSnapshot } from './named-snapshot.ts';
import { print } from './output.ts';

type InspectFlags = StoreFlags & { snapshot?: string };

/** Says in words what stands in one of cleancut's own files or objects. */
export async function inspect(target: string, flags: InspectFlags): Promise<void> {
  if (existsSync(target)) return inspectFile(target, flags.json);
  const store = await chosenStore(flags);
  if (target.startsWith('snap-')) return inspectSnapshot(store, target, flags.json);
  if (/^[0-9a-f]{64}$/.test(target)) return inspectNode(store, target as Sha256, flags);
  if (/^[0-9a-f]{32}$/.test(target)) return inspectPack(store, target as PackId, flags.json);
  throw new Error(
    `'${target}' is neither a file, nor a snapshot id, nor a manifest node (64 hex digits), nor a pack (32 hex digits)`,
  );
}

async function inspectSnapshot(store: ObjectStore, snapshotId: string, json: boolean | undefined): Promise<void> {
  const record = await namedSnapshot(store, snapshotId);
  const rows = Object.entries(record).map(([name, value]) => [
    name,
    typeof value === 'object' && value !== null ? JSON.stringify(value) : String(value),
  ]);
  print(json, record, ['field', 'value'], rows);
}

async function inspectNode(store: ObjectStore, node: Sha256, flags: InspectFlags): Promise<void> {
  const bytes = await store.get(nodeKey(node));
  const { json } = flags;
  if (isSealed(bytes) && flags.snapshot === undefined) {
    const { nodes, packs } = referencesOf(node, bytes);
    const names = [...nodes.map((id) => ['node', id]), ...packs.map((id) => ['pack', id])];
    print(json, { kind: 'sealed', nodes, packs }, ['names', 'which (--snapshot ID shows the rest)'], names);
    return;
  }
  const record = flags.snapshot === undefined ? {} : await namedSnapshot(store, flags.snapshot);
  const key = await new SnapshotKeys(flags, store).keyOf(record);
  if (isLeaf(bytes)) {
    const leaf = [...decodeLeaf(node, bytes, key)].flatMap(([slot, { whole, patch }]) => {
      const records = [{ slot, pages: 'all', ...whole }];
      if (patch !== undefined) records.push({ slot, pages: pageNames(patch.pages), ...patch.record });
      return records;
    });
    const rows = leaf.map((each) => [
      each.slot,
      each.pages,
      each.pack,
      each.offset,
      each.length,
      encodingName(each.encoding),
      each.sha256,
    ]);
    const titles = ['slot', 'pages', 'pack', 'offset', 'bytes', 'encoding', 'SHA-256'];
    print(json, { kind: 'leaf', blocks: leaf }, titles, rows);
    return;
  }
  const children = [...decodeBranch(node, bytes, key)].map(([slot, child]) => ({ slot, ...child }));
  const rows = children.map((child) => [child.slot, child.blocks, child.node]);
  print(json, { kind: 'branch', children }, ['slot', 'blocks with data', 'node'], rows);
}

/** `0-3 17`, by their place in the block. */
function pageNames(pages: PageMask): string {
  const names = runsOf(pages).map(({ page, count }) => (count === 1 ? `${page}` : `${page}-${page + count - 1}`));
  return names.join(' ');
}

async function inspectPack(store: ObjectStore, pack: PackId, json: boolean | undefined): Promise<void> {
  const blocks = readPackIndex(await store.get(packKey(pack)));
  const rows = blocks.map((block) => [block.offset, block.length, encodingName(block.encoding), block.sha256]);
  print(json, { pack, blocks }, ['offset', 'bytes', 'encoding', 'SHA-256'], rows);
}

function inspectFile(path: string, json: boolean | undefined): void {
  const disk = new NodeDisk();
  if (path.endsWith('.upload')) {
    const journal = new FileJournal(disk.open(path, 'read-only'));
    const records = journal.records();
    journal.close();
    const rows = records.map((record) =>
      record.kind === 'leaf'
        ? ['leaf stored', record.number, record.leaf?.node ?? 'empty']
        : ['blocks stored', record.stored.length, `${record.zero.length} zero, ${record.same.length} as in the base`],
    );
    print(json, records, ['record', 'number', 'what'], rows);
    return;
  }
  if (path.endsWith('.staging')) {
    const log = StagingLog.open(disk, path, 0x8000_0000 / 64, 'read-only');
    const report = { pages: log.pages.size, bytes: log.bytes, blocks: log.blocks.count() };
    log.close();
    print(
      json,
      report,
      ['old pages', 'bytes of them', 'file', 'blocks touched'],
      [[report.pages, formatBytes(report.pages * PAGE_BYTES), formatBytes(report.bytes), report.blocks]],
    );
    return;
  }
  const file = disk.open(path, 'read-only');
  const bits = readBitmapHeader(file, path);
  file.close();
  const bitmap = BitmapFile.open(disk, path, bits, 'read-only');
  const runs: { from: number; to: number }[] = [];
  for (let from = bitmap.bits.nextSet(0); from !== -1; from = bitmap.bits.nextSet(runs[runs.length - 1].to)) {
    runs.push({ from, to: bitmap.bits.nextClear(from) });
  }
  bitmap.close();
  const rows = runs.map(({ from, to }) => [
    from,
    to - 1,
    to - from,
    `${formatBytes(from * BLOCK_BYTES)} … ${formatBytes(to * BLOCK_BYTES)}`,
  ]);
  print(json, { bits, set: runs }, ['first block', 'last block', 'blocks', 'of the volume'], rows);
}

function encodingName(encoding: number): string {
  const found = Object.entries(ENCODING).find(([, number]) => number === encoding);
  return found?.[0].toLowerCase() ?? `unknown (${encoding})`;
}
