import type { TerminateInstancesRequest, TerminateInstancesResult } from '@aws-sdk/client-ec2';
import { errors } from '../errors.ts';
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
      move: (instanceId) => lifecycle.instances.takeApart(instanceId),
      reason: 'User initiated',
      check: ({ instance_id, state, ...instance }) => {
        if (instance.protected === 1 && state !== 'terminated') throw errors.terminationProtected(instance_id);
      },
    });
    return { TerminatingInstances: changes };
  },
};
