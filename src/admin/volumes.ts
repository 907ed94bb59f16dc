import { NOTHING, verb } from './verb.ts';

export type VolumeReport = {
  volumeId: string;
  sizeGiB: number;
  state: string;
  instanceId: string | null;
  device: string | null;
  connections: number;
  writes: number;
  reads: number;
  /** Old pages kept for cuts that are not stored yet. */
  stagedBytes: number;
  /** How much of a restored volume is local: 0 to 1. */
  hydratedShare: number;
};

/** `silentWorkers`: data-plane processes that do not answer; what only they know of their volumes is left out. */
export type VolumesReport = { volumes: VolumeReport[]; silentWorkers: number };

/** The caller's volumes with what the data plane knows of them. */
export const volumes = verb(NOTHING, async (_, call): Promise<VolumesReport> => {
  await call.permit();
  const { catalog, dataPlane } = call.services;
  const { volumes: known, silent } = await dataPlane.activity();
  const activity = new Map(known.map((volume) => [volume.volumeId, volume]));
  const rows = await catalog
    .selectFrom('volumes')
    .leftJoin('attachments', 'attachments.volume_id', 'volumes.volume_id')
    .select([
      'volumes.volume_id',
      'volumes.size_gib',
      'volumes.state',
      'volumes.hydrated',
      'attachments.instance_id',
      'attachments.device_name',
    ])
    .where('volumes.account_id', '=', call.caller.accountId)
    .where('volumes.region', '=', call.region)
    .orderBy('volumes.volume_id')
    .execute();
  const reports = rows.map((row) => {
    const live = activity.get(row.volume_id);
    const share = live === undefined ? 0 : live.hydratedBlocks / live.blocks;
    return {
      volumeId: row.volume_id,
      sizeGiB: row.size_gib,
      state: row.state,
      instanceId: row.instance_id,
      device: row.device_name,
      connections: live?.connections ?? 0,
      writes: live?.writes ?? 0,
      reads: live?.reads ?? 0,
      stagedBytes: live?.stagedBytes ?? 0,
      hydratedShare: row.hydrated === 1 ? 1 : share,
    };
  });
  return { volumes: reports, silentWorkers: silent.length };
});
