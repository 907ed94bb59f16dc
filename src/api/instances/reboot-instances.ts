import type { RebootInstancesRequest } from '@aws-sdk/client-ec2';
import { errors } from '../errors.ts';
import { readInstanceId } from '../identifiers.ts';
import type { Operation } from '../operation.ts';
import { attachedVolumes } from '../volumes/attached-volumes.ts';
import { findInstances } from './find-instance.ts';

/** Connections end, what was acknowledged is made durable, and clients may connect again. */
export const rebootInstances: Operation<RebootInstancesRequest, object> = {
  honoured: ['InstanceIds'],

  async run(input, call) {
    const ids = (input.InstanceIds ?? []).map((id) => readInstanceId(id));
    if (ids.length === 0) throw errors.missing('InstanceId');
    await call.permit(...ids.map((id) => ({ type: 'instance' as const, id })));
    const { catalog, dataPlane, lifecycle } = call.services;
    await lifecycle.locks.hold(ids, async () => {
      const instances = await findInstances(call, ids);
      for (const { instance_id, state } of instances) {
        if (state !== 'running' && state !== 'stopped') throw errors.instanceState(instance_id, state, 'running');
      }
      for (const { instance_id, state } of instances) {
        if (state !== 'running') continue;
        for (const { volume_id } of await attachedVolumes(catalog, instance_id)) {
          await lifecycle.instances.endExport(volume_id, instance_id);
          await dataPlane.exportVolume(volume_id);
        }
      }
    });
    return {};
  },
};
