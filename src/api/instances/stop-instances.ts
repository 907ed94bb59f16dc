import type { StopInstancesRequest, StopInstancesResult } from '@aws-sdk/client-ec2';
import type { Operation } from '../operation.ts';
import { changeState } from './change-state.ts';

export const stopInstances: Operation<StopInstancesRequest, StopInstancesResult> = {
  honoured: ['InstanceIds'],
  // There is no guest to wait for: connections end, what was acknowledged is made durable.
  withoutEffect: ['Force', 'SkipOsShutdown'],
  async run(input, call) {
    const { lifecycle } = call.services;
    const changes = await changeState(input.InstanceIds, call, {
      from: ['running'],
      settled: ['stopped', 'stopping'],
      through: 'stopping',
      move: (instanceId) => lifecycle.instances.bringDown(instanceId),
      reason: 'User initiated',
    });
    return { StoppingInstances: changes };
  },
};
