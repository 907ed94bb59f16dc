import type { InstanceRow } from '../../catalog/schema.ts';
import { putTags } from '../../catalog/tags.ts';
import { KeyError } from '../../keys/key-service.ts';
import { allOf } from '../../types/all-of.ts';
import { type ImageId, type InstanceId, newId } from '../../types/ids.ts';
import { protect } from '../encryption.ts';
import { errors } from '../errors.ts';
import type { ClientToken } from '../idempotency.ts';
import type { Call } from '../operation.ts';
import type { Tags } from '../tags/tag-rules.ts';
import { insertVolume } from '../volumes/new-volume.ts';
import type { PlannedDevice } from './device-plan.ts';

export type Launch = {
  count: number;
  imageId: ImageId;
  instanceType: string;
  zone: string;
  rootDeviceName: string;
  devices: readonly PlannedDevice[];
  instanceTags: Tags;
  volumeTags: Tags;
  clientToken: ClientToken | undefined;
  /** DisableApiTermination. */
  protected: boolean;
};

/**
 * Makes instances with their volumes, all of them or none, and brings them up.
 * @returns their ids, in launch order
 */
export async function launch(call: Call, order: Launch): Promise<InstanceId[]> {
  const { catalog, lifecycle, now } = call.services;
  const { accountId } = call.caller;
  const launchedAt = now();
  const reservationId = newId('r');
  const instances: InstanceRow[] = Array.from({ length: order.count }, (_, index) => ({
    instance_id: newId('i'),
    account_id: accountId,
    region: call.region,
    reservation_id: reservationId,
    launch_index: index,
    image_id: order.imageId,
    instance_type: order.instanceType,
    zone: order.zone,
    root_device_name: order.rootDeviceName,
    state: 'pending',
    launched_at: launchedAt.toISOString(),
    state_reason: '',
    terminated_at: null,
    protected: order.protected ? 1 : 0,
    client_token: order.clientToken?.token ?? null,
    client_token_request: order.clientToken?.request ?? null,
  }));
  const planned = instances.flatMap(({ instance_id }) =>
    order.devices.map((device) => ({ ...device, instanceId: instance_id })),
  );
  // At once: a KMS may be far away, and each encrypted volume has a key of its own.
  const volumes = await Promise.all(
    planned.map(async (volume) => ({ ...volume, protection: await protect(call, volume.encryption) })),
  );
  const ids = instances.map((instance) => instance.instance_id);
  // Held while they come up: what finishes things that were begun and left keeps its hands off.
  await lifecycle.locks.hold(ids, async () => {
    // The whole intention in one step: a crash from here on ends in running instances, never in half of one.
    await catalog.transaction().execute(async (transaction) => {
      for (const instance of instances) {
        await transaction.insertInto('instances').values(instance).execute();
        const owner = {
          resourceId: instance.instance_id,
          resourceType: 'instance',
          accountId,
          region: call.region,
        } as const;
        await putTags(transaction, owner, order.instanceTags);
        for (const volume of volumes) {
          if (volume.instanceId !== instance.instance_id) continue;
          const { shape, source, protection, deviceName, deleteOnTermination } = volume;
          const volumeId = newId('vol');
          await insertVolume(transaction, {
            volumeId,
            accountId,
            region: call.region,
            shape,
            zone: order.zone,
            multiAttach: false,
            source,
            protection,
            createdAt: launchedAt,
            clientToken: undefined,
          });
          await putTags(
            transaction,
            { resourceId: volumeId, resourceType: 'volume', accountId, region: call.region },
            order.volumeTags,
          );
          await transaction
            .insertInto('attachments')
            .values({
              volume_id: volumeId,
              instance_id: instance.instance_id,
              device_name: deviceName,
              attached_at: launchedAt.toISOString(),
              delete_on_termination: deleteOnTermination ? 1 : 0,
            })
            .execute();
        }
      }
    });
    try {
      await allOf(ids, (instanceId) => lifecycle.instances.bringUp(instanceId));
    } catch (error) {
      await undo(call, ids);
      if (error instanceof KeyError) throw error;
      throw errors.noSpace(`The instance could not be launched: ${(error as Error).message}`);
    }
  });
  return ids;
}

/** Nothing half-done stays: the volumes go, whatever DeleteOnTermination says, for nothing was ever written to them. */
async function undo(call: Call, ids: readonly InstanceId[]): Promise<void> {
  const { catalog, lifecycle } = call.services;
  await catalog
    .updateTable('attachments')
    .set({ delete_on_termination: 1 })
    .where('instance_id', 'in', [...ids])
    .execute();
  await catalog
    .updateTable('instances')
    .set({ state: 'shutting-down' })
    .where('instance_id', 'in', [...ids])
    .execute();
  for (const instanceId of ids) await lifecycle.instances.takeApart(instanceId);
  await catalog
    .deleteFrom('tags')
    .where('resource_id', 'in', [...ids])
    .execute();
  await catalog
    .deleteFrom('instances')
    .where('instance_id', 'in', [...ids])
    .execute();
}
