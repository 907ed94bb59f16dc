import type {
  DescribeSnapshotTierStatusRequest,
  DescribeSnapshotTierStatusResult,
  SnapshotTierStatus,
  TieringOperationStatus,
} from '@aws-sdk/client-ec2';
import { archivesOf } from '../../catalog/archive.ts';
import type { SnapshotArchiveRow, SnapshotRow } from '../../catalog/schema.ts';
import { tagsOf } from '../../catalog/tags.ts';
import { compileFilters, type FilterTable } from '../filters.ts';
import type { Call, Operation } from '../operation.ts';
import { fillPage } from '../pages.ts';
import { tagView } from '../tags/tag-view.ts';
import { candidates } from './candidates.ts';
import { dateOrNone, tierOf } from './snapshot-view.ts';

type MovedSnapshot = SnapshotRow & {
  tags: ReadonlyMap<string, string>;
  archive: SnapshotArchiveRow | undefined;
  /** Percent. */
  progress: number;
};

const FILTERS: FilterTable<MovedSnapshot> = {
  'last-tiering-operation': ({ archive }) => archive && operationStatus(archive),
  'snapshot-id': (snapshot) => snapshot.snapshot_id,
  'volume-id': (snapshot) => snapshot.volume_id,
};

/** In which tier the caller's snapshots are, and how far a move of theirs has come. */
export const describeSnapshotTierStatus: Operation<
  DescribeSnapshotTierStatusRequest,
  DescribeSnapshotTierStatusResult
> = {
  honoured: ['Filters', 'MaxResults', 'NextToken'],

  async run(input, call) {
    const passes = compileFilters(input.Filters, FILTERS, (snapshot) => snapshot.tags);
    await call.permit();
    const own = new Set([call.caller.accountId]);
    const page = await fillPage(
      call,
      input,
      { least: 5, most: 1000 },
      candidates(call, input.Filters, own, undefined),
      (rows) => withMoves(rows, call),
      passes,
    );
    return { SnapshotTierStatuses: page.items.map(statusView), NextToken: page.nextToken };
  },
};

async function withMoves(rows: SnapshotRow[], call: Call): Promise<MovedSnapshot[]> {
  const { catalog, lifecycle } = call.services;
  const ids = rows.map((row) => row.snapshot_id);
  const [tags, archives] = [await tagsOf(catalog, ids), await archivesOf(catalog, ids)];
  return rows.map((row) => {
    const id = row.snapshot_id;
    const archive = archives.get(id);
    const { doneBlocks = 0, totalBlocks = 0 } = lifecycle.archives.progressOf(id) ?? {};
    const share = totalBlocks === 0 ? 0 : Math.min(99, Math.floor((doneBlocks * 100) / totalBlocks));
    return {
      ...row,
      tags: tags.get(id) ?? new Map(),
      archive,
      progress: archive?.status === 'completed' ? 100 : share,
    };
  });
}

function operationStatus({ operation, status }: SnapshotArchiveRow): TieringOperationStatus {
  return `${operation}-${status}`;
}

function statusView(snapshot: MovedSnapshot): SnapshotTierStatus {
  const { archive } = snapshot;
  return {
    SnapshotId: snapshot.snapshot_id,
    VolumeId: snapshot.volume_id,
    Status: snapshot.state,
    OwnerId: snapshot.account_id,
    Tags: tagView(snapshot.tags),
    StorageTier: tierOf(snapshot),
    LastTieringStartTime: dateOrNone(archive?.started_at),
    LastTieringProgress: archive && snapshot.progress,
    LastTieringOperationStatus: archive && operationStatus(archive),
    LastTieringOperationStatusDetail: archive?.detail === '' ? undefined : archive?.detail,
    ArchivalCompleteTime: dateOrNone(archive?.archived_at),
    RestoreExpiryTime: dateOrNone(archive?.restored_until),
  };
}
