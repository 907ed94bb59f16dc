import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { test } from 'node:test';
import { DescribeVolumesCommand } from '@aws-sdk/client-ec2';
import { startTestServer, type TestServer } from '../support/server.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';
import { tool, without } from '../support/tools.ts';

/** Debian's, where it is: another one on the PATH may not have the packages. */
const PYTHON = existsSync('/usr/bin/python3') ? '/usr/bin/python3' : 'python3';
const HERE = new URL('.', import.meta.url).pathname;

function withoutPackage(name: string): string | false {
  if (spawnSync(PYTHON, ['-c', `import ${name}`]).status === 0) return false;
  if (process.env.CLEANCUT_TEST_NO_SKIP === '1') throw new Error(`Python's ${name} must be installed in CI`);
  return `needs Python's ${name}`;
}

function environment(server: TestServer): NodeJS.ProcessEnv {
  return {
    AWS_SHARED_CREDENTIALS_FILE: `${server.dataDir}/credentials`,
    AWS_DEFAULT_REGION: 'us-east-1',
    PATH: `/usr/bin:${process.env.PATH}`,
  };
}

test('boto3: the main job, dry run, waiters, paginators, and the direct APIs', {
  skip: withoutPackage('boto3'),
}, async (t) => {
  const server = await startTestServer(t);
  const out = await tool(PYTHON, [`${HERE}with_boto3.py`, server.apiUrl], environment(server));
  assert.match(out, /boto3 is content/);
  for (const line of out.split('\n')) if (line.includes('not asked about')) t.diagnostic(line);
});

test("Ansible's amazon.aws modules for volumes and snapshots", {
  skip: without('ansible-playbook') || withoutPackage('boto3'),
}, async (t) => {
  const server = await startTestServer(t);
  await tool(
    '/usr/bin/ansible-playbook',
    ['-i', 'localhost,', `${HERE}ansible.yml`, '-e', `ansible_python_interpreter=${PYTHON}`],
    {
      ...environment(server),
      AWS_URL: server.apiUrl,
      EC2_URL: server.apiUrl,
      HOME: temporaryDirectory(t),
      ANSIBLE_NOCOLOR: '1',
    },
  ).catch((error: { stdout: string; stderr: string }) => assert.fail(`${error.stdout}\n${error.stderr}`));
  assert.deepEqual((await server.ec2.send(new DescribeVolumesCommand({}))).Volumes, []);
});
