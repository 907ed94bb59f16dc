import type {
  DescribeAccountAttributesRequest,
  DescribeAccountAttributesResult,
  DescribeSecurityGroupsRequest,
  DescribeSecurityGroupsResult,
  DescribeSubnetsRequest,
  DescribeSubnetsResult,
  DescribeVpcsRequest,
  DescribeVpcsResult,
} from '@aws-sdk/client-ec2';
import { ApiError } from '../../wire/api-error.ts';
import type { Operation } from '../operation.ts';

// There is no network here: what tools ask about it in passing is answered with nothing, and a name with NotFound.

export const describeVpcs: Operation<DescribeVpcsRequest, DescribeVpcsResult> = {
  honoured: ['VpcIds'],
  withoutEffect: ['Filters', 'MaxResults', 'NextToken'],
  async run(input, call) {
    await call.permit();
    for (const id of input.VpcIds ?? [])
      throw new ApiError('InvalidVpcID.NotFound', `The vpc ID '${id}' does not exist`);
    return { Vpcs: [] };
  },
};

export const describeSubnets: Operation<DescribeSubnetsRequest, DescribeSubnetsResult> = {
  honoured: ['SubnetIds'],
  withoutEffect: ['Filters', 'MaxResults', 'NextToken'],
  async run(input, call) {
    await call.permit();
    for (const id of input.SubnetIds ?? []) {
      throw new ApiError('InvalidSubnetID.NotFound', `The subnet ID '${id}' does not exist`);
    }
    return { Subnets: [] };
  },
};

export const describeSecurityGroups: Operation<DescribeSecurityGroupsRequest, DescribeSecurityGroupsResult> = {
  honoured: ['GroupIds', 'GroupNames'],
  withoutEffect: ['Filters', 'MaxResults', 'NextToken'],
  async run(input, call) {
    await call.permit();
    for (const id of [...(input.GroupIds ?? []), ...(input.GroupNames ?? [])]) {
      throw new ApiError('InvalidGroup.NotFound', `The security group '${id}' does not exist`);
    }
    return { SecurityGroups: [] };
  },
};

export const describeAccountAttributes: Operation<DescribeAccountAttributesRequest, DescribeAccountAttributesResult> = {
  honoured: ['AttributeNames'],
  async run(input, call) {
    await call.permit();
    const all = [
      { AttributeName: 'supported-platforms', AttributeValues: [{ AttributeValue: 'VPC' }] },
      { AttributeName: 'default-vpc', AttributeValues: [{ AttributeValue: 'none' }] },
      { AttributeName: 'max-instances', AttributeValues: [{ AttributeValue: '1000000' }] },
    ];
    const wanted = new Set<string>(input.AttributeNames ?? all.map((attribute) => attribute.AttributeName));
    return { AccountAttributes: all.filter((attribute) => wanted.has(attribute.AttributeName)) };
  },
};
