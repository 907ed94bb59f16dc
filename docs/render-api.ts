/** Renders docs/api.md from AWS's model and the code. `npm run docs` writes it; a test fails when it is out of date. */
import { writeFileSync } from 'node:fs';
import type { AnyOperation } from '../src/api/operation.ts';
import { OPERATIONS } from '../src/api/operations.ts';
import { EBS_OPERATIONS } from '../src/server/ebs-endpoint.ts';
import { RECYCLE_BIN_OPERATIONS } from '../src/server/recycle-bin-endpoint.ts';
import { ec2Operations, type OperationShape } from '../src/wire/model.ts';

/** Whose operations are listed, built or not. */
const FAMILIES: [string, RegExp][] = [
  ['Snapshots', /Snapshot|EbsEncryption|EbsDefaultKms/],
  ['Volumes', /Volume/],
  ['Images', /Images?(Attribute|$|Block|Deprecation)|FromRecycleBin|Image$/],
  ['Instances', /^(Run|Start|Stop|Reboot|Terminate|Describe|Modify|Reset|Monitor|Unmonitor)Instance/],
  ['Tags', /Tags$/],
  [
    'Regions, zones, and what tools ask in passing',
    /^Describe(Regions|AvailabilityZones|AccountAttributes|Vpcs|Subnets|SecurityGroups)$/,
  ],
];

const INTRODUCTION = `# The API

Written by \`npm run docs\` from AWS's own model and the code; a test fails when it is out of date.

Each parameter is **honoured**; or accepted **without effect**, where tools send it by habit and it means nothing here
(an instance here is a group of volumes; its computer is any machine that connects); or **refused** with
\`UnsupportedOperation\`, by name. None is ignored in silence. A value of an honoured parameter may be refused too
(an \`OutpostArn\`), with a message that says why. \`DryRun\` is honoured by every operation that has it.
`;

export function renderApi(): string {
  const model = ec2Operations();
  const listed = new Set<string>();
  const sections = FAMILIES.map(([title, names]) => {
    const family = [...model.keys()].filter((name) => names.test(name) && !listed.has(name)).sort();
    for (const name of family) listed.add(name);
    const built = family.filter((name) => Object.hasOwn(OPERATIONS, name));
    const unbuilt = family.filter((name) => !Object.hasOwn(OPERATIONS, name));
    const tables = built.map((name) => renderOperation(name, OPERATIONS[name], model.get(name)));
    const rest = unbuilt.length === 0 ? '' : `\nNot built: ${unbuilt.join(', ')}.\n`;
    return `## ${title}\n\n${tables.join('\n')}${rest}`;
  });
  const missed = Object.keys(OPERATIONS).filter((name) => !listed.has(name));
  if (missed.length > 0) throw new Error(`${missed.join(', ')} belong to no family of docs/api.md`);
  const ebs = Object.keys(EBS_OPERATIONS).sort();
  const direct = `## EBS direct APIs\n\nAll six are built: ${ebs.join(', ')}. Every parameter is honoured.\n`;
  const bin = Object.keys(RECYCLE_BIN_OPERATIONS).sort();
  const rules = `## Recycle Bin\n\nAll ten are built, for rules about snapshots (\`EBS_SNAPSHOT\`): ${bin.join(', ')}. Every parameter is honoured.\n`;
  return [INTRODUCTION, ...sections, direct, rules].join('\n');
}

function renderOperation(name: string, operation: AnyOperation, shape: OperationShape | undefined): string {
  const honoured: string[] = [];
  const withoutEffect: string[] = [];
  const refused: string[] = [...(operation.refused ?? [])];
  const known: readonly string[] = operation.honoured;
  for (const [member] of shape?.input.structIterator() ?? []) {
    if (known.includes(member)) honoured.push(member);
    else if (operation.withoutEffect?.includes(member)) withoutEffect.push(member);
    else if (member !== 'DryRun') refused.push(member);
  }
  const line = (title: string, members: string[]): string =>
    members.length === 0 ? '' : `- ${title}: ${members.map((member) => `\`${member}\``).join(', ')}\n`;
  const lines = line('honoured', honoured) + line('without effect', withoutEffect) + line('refused', refused);
  return `### ${name}\n\n${lines === '' ? 'No parameters.\n' : lines}`;
}

if (process.argv[1] === new URL(import.meta.url).pathname) {
  writeFileSync(new URL('./api.md', import.meta.url), renderApi());
}
