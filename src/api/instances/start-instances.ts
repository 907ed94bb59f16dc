import type { StartInstancesRequest, StartInstancesResult } from '@aws-sdk/client-ec2';
import type { Operation } from '../operation.ts';
import { changeState } from './change-state.ts';

export const startInstances: Operation<StartInstancesRequest, StartInstancesResult> = {
  honoured: ['InstanceIds'],
  async run(input, call) {
    const { lifecycle } = call.services;
    const changes = await changeState(input.InstanceIds, call, {
      from: ['stopped'],
      settled: ['running', 'pending'],
      through: 'pending',
      async move(instanceId) {
        try {
          await lifecycle.instances.bringUp(instanceId);
        } catch (error) {
          // A volume that cannot be opened (its key is disabled, say): the instance is as it was, and may be tried again.
          await lifecycle.instances.bringDown(instanceId);
          throw error;
        }
      },
      reason: '',
    });
    return { StartingInstances: changes };
  },
};
