import type { TerminateInstancesRequest, TerminateInstancesResult } from '@aws-sdk/client-ec2';
import type { Operation } from '../operation.ts';
import { changeState } from './change-state.ts';

export const terminateInstances: Operation<TerminateInstancesRequest, TerminateInstancesResult> = {
  honoured: ['InstanceIds'],
  withoutEffect: ['Force', 'SkipOsShutdown'],
  async run(input, call) {
    const { lifecycle } = call.services;
    const changes = await changeState(input.InstanceIds, call, {
      from: ['running', 'stopped', 'pending', 'stopping', 'shutting-down'],
      settled: ['terminated'],
      through: 'shutting-down',
      move: (instanceId) => lifecycle.takeApart(instanceId),
      reason: 'User initiated',
    });
    return { TerminatingInstances: changes };
  },
};
