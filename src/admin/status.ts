import { binnedApart, countBinned } from '../catalog/recycle-bin.ts';
import { requireOperator } from './operator.ts';
import { NOTHING, verb } from './verb.ts';

/** How the server is: what there is, in which states, and what the data plane holds. */
export const status = verb(NOTHING, async (_, call) => {
  requireOperator(call);
  await call.permit();
  const { catalog, dataPlane } = call.services;
  const { volumes, silent } = await dataPlane.activity();
  const { count } = catalog.fn;
  const states = async (table: 'instances' | 'volumes' | 'snapshots'): Promise<Record<string, number>> => {
    const rows = await catalog
      .selectFrom(table)
      .select(['state', count<number>('state').as('number')])
      .where('account_id', '=', call.caller.accountId)
      .where('region', '=', call.region)
      .groupBy('state')
      .execute();
    return Object.fromEntries(rows.map((row) => [row.state, Number(row.number)]));
  };
  return {
    objectStore: call.services.store.url,
    region: call.region,
    instances: await states('instances'),
    volumes: await states('volumes'),
    snapshots: binnedApart(await states('snapshots'), await countBinned(catalog, call.owner)),
    connections: volumes.reduce((sum, volume) => sum + volume.connections, 0),
    stagedBytes: volumes.reduce((sum, volume) => sum + volume.stagedBytes, 0),
    /** Data-plane processes that do not answer: what they know is left out. */
    silentWorkers: silent.length,
  };
});
