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
      move: (instanceId) => lifecycle.bringUp(instanceId),
      reason: '',
    });
    return { StartingInstances: changes };
  },
};
