import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { DescribeImagesCommand, DescribeSnapshotsCommand, DescribeVolumesCommand } from '@aws-sdk/client-ec2';
import type { KeyReport } from '../../src/keys/key-service.ts';
import { startTestServer } from '../support/server.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';
import { tool, without } from '../support/tools.ts';

/** A folder with the AWS provider in it, as `terraform providers mirror` makes it: Terraform must not go and fetch it. */
const MIRROR = process.env.CLEANCUT_TEST_TERRAFORM_MIRROR;
const LACKING =
  MIRROR === undefined ? 'needs CLEANCUT_TEST_TERRAFORM_MIRROR, a folder with the AWS provider' : without('terraform');

const CONFIGURATION = (endpoint: string, kmsKey: string): string => `
terraform {
  required_providers {
    aws = { source = "hashicorp/aws" }
  }
}
provider "aws" {
  region                  = "us-east-1"
  skip_metadata_api_check = true
  endpoints {
    ec2  = "${endpoint}"
    rbin = "${endpoint}"
    sts  = "${endpoint}"
  }
}
resource "aws_instance" "db" {
  ami               = "ami-00000000000000001"
  instance_type     = "t3.micro"
  availability_zone = "us-east-1a"
  root_block_device {
    volume_size = 8
  }
  tags = { Name = "db" }
}
resource "aws_ebs_volume" "data" {
  availability_zone = "us-east-1a"
  size              = 2
  type              = "gp3"
  tags              = { Name = "data" }
}
resource "aws_volume_attachment" "data" {
  device_name = "/dev/sdf"
  volume_id   = aws_ebs_volume.data.id
  instance_id = aws_instance.db.id
}
resource "aws_ebs_snapshot" "data" {
  volume_id   = aws_ebs_volume.data.id
  description = "by terraform"
  tags        = { Name = "snap" }
  depends_on  = [aws_volume_attachment.data]
}
resource "aws_ebs_volume" "copy" {
  availability_zone = "us-east-1a"
  snapshot_id       = aws_ebs_snapshot.data.id
  type              = "gp3"
}
resource "aws_ebs_volume" "secret" {
  availability_zone = "us-east-1a"
  size              = 1
  type              = "gp3"
  encrypted         = true
  kms_key_id        = "${kmsKey}"
}
resource "aws_ebs_snapshot" "secret" {
  volume_id = aws_ebs_volume.secret.id
}
resource "aws_ebs_snapshot_copy" "encrypted" {
  source_snapshot_id = aws_ebs_snapshot.data.id
  source_region      = "us-east-1"
  description        = "under another key"
  encrypted          = true
  kms_key_id         = "${kmsKey}"
}
resource "aws_ebs_snapshot_block_public_access" "all" {
  state = "block-all-sharing"
}
resource "aws_ebs_default_kms_key" "default" {
  key_arn = "${kmsKey}"
}
resource "aws_ebs_encryption_by_default" "on" {
  enabled    = true
  depends_on = [aws_ebs_volume.copy, aws_instance.db, aws_ebs_volume.secret, aws_ami.golden]
}
resource "aws_ebs_snapshot" "cold" {
  volume_id    = aws_ebs_volume.data.id
  storage_tier = "archive"
  depends_on   = [aws_ebs_snapshot.data]
}
resource "aws_rbin_rule" "week" {
  description   = "a week"
  resource_type = "EBS_SNAPSHOT"
  resource_tags {
    resource_tag_key   = "keep"
    resource_tag_value = "yes"
  }
  retention_period {
    retention_period_value = 7
    retention_period_unit  = "DAYS"
  }
  tags = { Name = "week" }
}
resource "aws_ami" "golden" {
  name                = "golden"
  root_device_name    = "/dev/xvda"
  virtualization_type = "hvm"
  ebs_block_device {
    device_name = "/dev/xvda"
    snapshot_id = aws_ebs_snapshot.data.id
    volume_size = 2
  }
}
`;

test("Terraform's AWS provider: apply, a second plan that changes nothing, destroy", { skip: LACKING }, async (t) => {
  const archive = temporaryDirectory(t);
  const server = await startTestServer(t, { flags: ['--archive-store', `file://${archive}`] });
  const directory = temporaryDirectory(t);
  const { arn } = await server.admin.ask<KeyReport>('create-key', {});
  writeFileSync(`${directory}/main.tf`, CONFIGURATION(server.apiUrl, arn));
  writeFileSync(
    `${directory}/terraform.rc`,
    `provider_installation {\n  filesystem_mirror {\n    path = "${MIRROR}"\n  }\n}\n`,
  );
  const terraform = (...argv: string[]): Promise<string> =>
    tool('terraform', [`-chdir=${directory}`, ...argv, '-no-color'], {
      TF_CLI_CONFIG_FILE: `${directory}/terraform.rc`,
      AWS_SHARED_CREDENTIALS_FILE: `${server.dataDir}/credentials`,
    });
  await terraform('init');
  await terraform('apply', '-auto-approve');
  // Exit code 0: nothing to change. 2 would be a plan with changes, which fails here.
  await terraform('plan', '-detailed-exitcode');
  const { Volumes = [] } = await server.ec2.send(new DescribeVolumesCommand({}));
  assert.equal(Volumes.length, 4);
  assert.ok(Volumes.some((volume) => volume.Encrypted === true && volume.KmsKeyId === arn));
  const { Images = [] } = await server.ec2.send(new DescribeImagesCommand({ Owners: ['self'] }));
  assert.ok(Images.some((image) => image.Name === 'golden'));
  const archived = new DescribeSnapshotsCommand({ Filters: [{ Name: 'storage-tier', Values: ['archive'] }] });
  assert.equal((await server.ec2.send(archived)).Snapshots?.length, 1);
  await terraform('destroy', '-auto-approve');
  assert.deepEqual((await server.ec2.send(new DescribeVolumesCommand({}))).Volumes, []);
  assert.deepEqual((await server.ec2.send(new DescribeSnapshotsCommand({ OwnerIds: ['self'] }))).Snapshots, []);
});
