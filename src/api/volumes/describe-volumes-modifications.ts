import type { DescribeVolumesModificationsRequest, DescribeVolumesModificationsResult } from '@aws-sdk/client-ec2';
import type { VolumeModificationRow } from '../../catalog/schema.ts';
import type { VolumeId } from '../../types/ids.ts';
import { errors } from '../errors.ts';
import { compileFilters, type FilterTable } from '../filters.ts';
import { firstMissing, readVolumeId } from '../identifiers.ts';
import type { Operation } from '../operation.ts';
import { fillPage } from '../pages.ts';
import { findVolumes } from './find-volume.ts';
import { modificationView } from './modification-view.ts';

const FILTERS: FilterTable<VolumeModificationRow> = {
  'modification-state': (modification) => modification.state,
  'original-iops': (modification) => modification.original_iops ?? undefined,
  'original-size': (modification) => modification.original_size_gib,
  'original-volume-type': (modification) => modification.original_type,
  originalMultiAttachEnabled: () => false,
  'start-time': (modification) => modification.started_at,
  'target-iops': (modification) => modification.target_iops ?? undefined,
  'target-size': (modification) => modification.target_size_gib,
  'target-volume-type': (modification) => modification.target_type,
  targetMultiAttachEnabled: () => false,
  'volume-id': (modification) => modification.volume_id,
};

export const describeVolumesModifications: Operation<
  DescribeVolumesModificationsRequest,
  DescribeVolumesModificationsResult
> = {
  honoured: ['VolumeIds', 'Filters', 'MaxResults', 'NextToken'],
  // Nothing here is managed by another service.
  withoutEffect: ['IncludeManagedResources'],

  async run(input, call) {
    const ids = (input.VolumeIds ?? []).map((id) => readVolumeId(id));
    const passes = compileFilters(input.Filters, FILTERS, () => new Map());
    await call.permit();
    const { catalog } = call.services;
    const asked = new Set(ids);
    if (ids.length > 0) {
      await findVolumes(call, ids);
      const modified = await catalog
        .selectFrom('volume_modifications')
        .select('volume_id')
        .where('volume_id', 'in', ids)
        .execute();
      const missing = firstMissing(ids, modified, (row) => row.volume_id);
      if (missing !== undefined && input.Filters === undefined) throw errors.noModification(missing);
    }
    const page = await fillPage(
      call,
      input,
      { least: 1, most: 500 },
      {
        fetch: (after, most) =>
          catalog
            .selectFrom('volume_modifications')
            .innerJoin('volumes', 'volumes.volume_id', 'volume_modifications.volume_id')
            .selectAll('volume_modifications')
            .where('volumes.account_id', '=', call.caller.accountId)
            .where('volumes.region', '=', call.region)
            .where('volumes.volume_id', '>', after as VolumeId)
            .orderBy('volumes.volume_id')
            .limit(most)
            .execute(),
        idOf: (row) => row.volume_id,
      },
      async (rows) => rows,
      (row) => (ids.length === 0 || asked.has(row.volume_id)) && passes(row),
    );
    return { VolumesModifications: page.items.map(modificationView), NextToken: page.nextToken };
  },
};
