"""Drives the server with boto3, waiters and paginators too; exits 0 when all is as it should be."""

import base64
import hashlib
import sys

import boto3
from botocore.exceptions import ClientError

endpoint = sys.argv[1]
session = boto3.session.Session(region_name="us-east-1")
ec2 = session.client("ec2", endpoint_url=endpoint)
ebs = session.client("ebs", endpoint_url=endpoint)
sts = session.client("sts", endpoint_url=endpoint)

assert sts.get_caller_identity()["Account"] == "000000000001"

instance = ec2.run_instances(
    ImageId="ami-00000000000000001",
    MinCount=1,
    MaxCount=1,
    BlockDeviceMappings=[{"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 1, "VolumeType": "gp3"}}],
    TagSpecifications=[{"ResourceType": "volume", "Tags": [{"Key": "team", "Value": "storage & <more>"}]}],
)["Instances"][0]
ec2.get_waiter("instance_running").wait(InstanceIds=[instance["InstanceId"]])

answer = ec2.create_snapshots(
    Description="string",
    InstanceSpecification={"InstanceId": instance["InstanceId"], "ExcludeBootVolume": True},
    TagSpecifications=[{"ResourceType": "snapshot", "Tags": [{"Key": "run", "Value": "1"}]}],
    CopyTagsFromSource="volume",
)
(snapshot,) = answer["Snapshots"]
assert snapshot["State"] == "pending", snapshot
assert {tag["Key"]: tag["Value"] for tag in snapshot["Tags"]} == {"team": "storage & <more>", "run": "1"}
ec2.get_waiter("snapshot_completed").wait(SnapshotIds=[snapshot["SnapshotId"]], WaiterConfig={"Delay": 1})

try:
    ec2.create_snapshots(InstanceSpecification={"InstanceId": instance["InstanceId"]}, DryRun=True)
    raise AssertionError("a dry run must not succeed")
except ClientError as error:
    assert error.response["Error"]["Code"] == "DryRunOperation", error
    assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 412

if not hasattr(ec2, "lock_snapshot"):
    print(f"boto3 {boto3.__version__} does not know locks: they were not asked about")
else:
    locked = ec2.lock_snapshot(SnapshotId=snapshot["SnapshotId"], LockMode="governance", LockDuration=1)
    assert locked["LockState"] == "governance" and locked["LockDuration"] == 1, locked
    try:
        ec2.delete_snapshot(SnapshotId=snapshot["SnapshotId"])
        raise AssertionError("a locked snapshot must not be deleted")
    except ClientError as error:
        assert error.response["Error"]["Code"] == "SnapshotLocked", error
    (shown,) = ec2.describe_locked_snapshots()["Snapshots"]
    assert shown["SnapshotId"] == snapshot["SnapshotId"] and shown["LockExpiresOn"] == locked["LockExpiresOn"], shown
    ec2.unlock_snapshot(SnapshotId=snapshot["SnapshotId"])

rbin = session.client("rbin", endpoint_url=endpoint)
rule = rbin.create_rule(
    ResourceType="EBS_SNAPSHOT",
    RetentionPeriod={"RetentionPeriodValue": 2, "RetentionPeriodUnit": "DAYS"},
    ResourceTags=[{"ResourceTagKey": "team"}],
    Tags=[{"Key": "by", "Value": "boto3"}],
)
assert rule["Status"] == "available", rule
arn = f"arn:aws:rbin:us-east-1:000000000001:rule/{rule['Identifier']}"
# Older versions do not show it.
assert rule.get("RuleArn", arn) == arn, rule
assert rbin.list_tags_for_resource(ResourceArn=arn)["Tags"] == [{"Key": "by", "Value": "boto3"}]
rbin.untag_resource(ResourceArn=arn, TagKeys=["by", "for"])
assert rbin.list_tags_for_resource(ResourceArn=arn)["Tags"] == []
ec2.delete_snapshot(SnapshotId=snapshot["SnapshotId"])
try:
    ec2.describe_snapshots(SnapshotIds=[snapshot["SnapshotId"]])
    raise AssertionError("a deleted snapshot must not be described")
except ClientError as error:
    assert error.response["Error"]["Code"] == "InvalidSnapshot.NotFound", error
(kept,) = ec2.get_paginator("list_snapshots_in_recycle_bin").paginate().build_full_result()["Snapshots"]
assert (kept["RecycleBinExitTime"] - kept["RecycleBinEnterTime"]).days == 2, kept
ec2.restore_snapshot_from_recycle_bin(SnapshotId=kept["SnapshotId"])
ec2.get_waiter("snapshot_completed").wait(SnapshotIds=[snapshot["SnapshotId"]], WaiterConfig={"Delay": 1})
rbin.delete_rule(Identifier=rule["Identifier"])
try:
    rbin.get_rule(Identifier=rule["Identifier"])
    raise AssertionError("a deleted rule must not be there")
except rbin.exceptions.ResourceNotFoundException as error:
    assert error.response["Reason"] == "RULE_NOT_FOUND", error.response

started = ebs.start_snapshot(VolumeSize=1, Description="block by block")
block = b"boto3 " * 100_000
block = block[:524288]
checksum = base64.b64encode(hashlib.sha256(block).digest()).decode()
for index in range(12):
    ebs.put_snapshot_block(
        SnapshotId=started["SnapshotId"],
        BlockIndex=index,
        BlockData=block,
        DataLength=len(block),
        Checksum=checksum,
        ChecksumAlgorithm="SHA256",
    )
ebs.complete_snapshot(SnapshotId=started["SnapshotId"], ChangedBlocksCount=12)
ec2.get_waiter("snapshot_completed").wait(SnapshotIds=[started["SnapshotId"]], WaiterConfig={"Delay": 1})
listed = ebs.list_snapshot_blocks(SnapshotId=started["SnapshotId"])
assert [each["BlockIndex"] for each in listed["Blocks"]] == list(range(12))
read = ebs.get_snapshot_block(
    SnapshotId=started["SnapshotId"], BlockIndex=11, BlockToken=listed["Blocks"][11]["BlockToken"]
)
assert read["BlockData"].read() == block

for _ in range(7):
    ec2.copy_snapshot(SourceRegion="us-east-1", SourceSnapshotId=snapshot["SnapshotId"])
pages = list(ec2.get_paginator("describe_snapshots").paginate(OwnerIds=["self"], PaginationConfig={"PageSize": 5}))
ids = [each["SnapshotId"] for page in pages for each in page["Snapshots"]]
assert len(pages) == 2 and len(ids) == len(set(ids)) == 9, (len(pages), ids)

volume = ec2.create_volume(AvailabilityZone="us-east-1a", SnapshotId=started["SnapshotId"], VolumeType="gp3")
ec2.get_waiter("volume_available").wait(VolumeIds=[volume["VolumeId"]])
ec2.modify_volume(VolumeId=volume["VolumeId"], Size=2)
ec2.delete_volume(VolumeId=volume["VolumeId"])
ec2.terminate_instances(InstanceIds=[instance["InstanceId"]])
ec2.get_waiter("instance_terminated").wait(InstanceIds=[instance["InstanceId"]])
print("boto3 is content")
