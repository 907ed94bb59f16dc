import type { InstanceRow } from '../../catalog/schema.ts';
import type { InstanceId } from '../../types/ids.ts';
import { errors } from '../errors.ts';
import { firstMissing } from '../identifiers.ts';
import type { Call } from '../operation.ts';

/** @throws ApiError InvalidInstanceID.NotFound when the caller has no such instance */
export async function findInstance(call: Call, instanceId: InstanceId): Promise<InstanceRow> {
  const [instance] = await findInstances(call, [instanceId]);
  return instance;
}

/** @throws ApiError InvalidInstanceID.NotFound for the first that the caller has not */
export async function findInstances(call: Call, ids: readonly InstanceId[]): Promise<InstanceRow[]> {
  const rows = await call.services.catalog
    .selectFrom('instances')
    .selectAll()
    .where('instance_id', 'in', [...ids])
    .where('account_id', '=', call.caller.accountId)
    .where('region', '=', call.region)
    .orderBy('instance_id')
    .execute();
  const missing = firstMissing(ids, rows, (row) => row.instance_id);
  if (missing !== undefined) throw errors.noInstance(missing);
  return rows;
}

/** A page of the caller's instances, by id. */
export function instancesAfter(call: Call, after: string, most: number): Promise<InstanceRow[]> {
  return call.services.catalog
    .selectFrom('instances')
    .selectAll()
    .where('account_id', '=', call.caller.accountId)
    .where('region', '=', call.region)
    .where('instance_id', '>', after as InstanceId)
    .orderBy('instance_id')
    .limit(most)
    .execute();
}
