import { Command, InvalidArgumentError, Option } from 'commander';
import { readVersion } from '../server/version.ts';

// Each verb is loaded when it is asked for: help must not wait for the AWS SDK.
const reports = () => import('./reports.ts');
const images = () => import('./images.ts');

function positiveInteger(text: string): number {
  if (!/^[1-9]\d{0,8}$/.test(text)) throw new InvalidArgumentError('Expected a whole number, 1 or more.');
  return Number(text);
}

const program = new Command('cleancut')
  .description('Crash-consistent snapshots of all the volumes of an instance, at one instant, kept in S3.')
  .version(readVersion())
  .showHelpAfterError();

program
  .command('serve')
  .description('run the server: the EC2 API over HTTP, the volumes over NBD')
  .option('--data-dir <dir>', 'where the catalog and the volumes live (default: ./cleancut-data)')
  .option('--host <address>', 'to listen on; anything but loopback needs TLS (default: 127.0.0.1)')
  .option('--tls-cert <file>', 'the API speaks HTTPS with this certificate (PEM; read again when it changes)')
  .option('--tls-key <file>', 'its key')
  .option('--nbd-tls-cert <file>', 'NBD over TCP speaks TLS with this certificate')
  .option('--nbd-tls-key <file>', 'its key')
  .option('--nbd-tls-ca <file>', 'whose clients are let in: their CN is an account’s id, or an instance’s')
  .option('--nbd-psk-file <file>', 'or shared keys: lines IDENTITY:HEXKEY, identities as above')
  .option('--connections-per-client <n>', 'from one address at once (default: 256)')
  .option('--port <port>', 'of the API; 0 takes any free one (default: 8773)')
  .option('--nbd-port <port>', 'of NBD over TCP; 0 takes any free one, off means the unix socket alone (default: off)')
  .option('--object-store <url>', 'file:///PATH or s3://BUCKET/PREFIX?endpoint=…&region=…&path-style=true')
  .option('--archive-store <url>', 'the same for archived snapshots (default: none, and no archive tier)')
  .option('--region <name>', 'the region that this endpoint says it is (default: us-east-1)')
  .option('--more-regions <names>', 'further regions, separated by commas', (names: string) => names.split(','))
  .option('--zones <names>', 'its zones, separated by commas', (names: string) => names.split(','))
  .option('--account-id <digits>', 'the default account (default: 000000000001)')
  .option('--workers <count>', 'data-plane processes (default: one for each core, at least 2)')
  .option('--hold-deadline-ms <ms>', 'how long writes may be held for a cut (default: 1000)')
  .option('--staging-limit-gib <gib>', 'old pages kept for one volume’s pending snapshots (default: 64)')
  .option('--upload-patience-hours <hours>', 'how long an upload tries while the object store fails (default: 24)')
  .option('--snapshot-gap-seconds <s>', 'least time between two snapshots of a volume (default: 0)')
  .option('--pending-snapshots-per-volume <n>', 'snapshots of a volume in progress at once (default: 5)')
  .option('--snapshots-per-account <n>', 'snapshots an account can have (default: 100000)')
  .option('--requests-per-second <n>', 'API requests of one account; 0 lets all through (default: 0)')
  .option('--request-burst <n>', 'so many at once on top (default: 100)')
  .option('--scrub-days <n>', 'how often all snapshots’ data is read and checked; 0: never (default: 30)')
  .option('--scrub-mib-per-second <n>', 'how fast (default: 8)')
  .option('--catalog-backup-minutes <n>', 'how often the catalog is saved to the store; 0: never (default: 60)')
  .option('--audit-log <file>', 'who did what (default: DIR/audit.log); a SIGHUP begins a new one')
  .option('--key-file <file>', 'protects the keyring (default: DIR/keyring.key; CLEANCUT_KEY_PASSPHRASE instead)')
  .option('--kms <url>', 'keys in a KMS instead of the keyring: its endpoint, or aws')
  .addOption(new Option('--log-level <level>').choices(['debug', 'info', 'warn', 'error', 'silent']))
  .option('--config <file>', 'settings as JSON: { "dataDir": "/srv/cleancut", … }')
  .addHelpText('after', '\nEach setting is also read from the environment: CLEANCUT_DATA_DIR, CLEANCUT_PORT, …')
  .action(async (flags) => (await import('./serve.ts')).serve(flags));

const DATA_DIR = ['--data-dir <dir>', 'of the server to ask (default: ./cleancut-data)'] as const;
const JSON_FLAG = ['--json', 'print JSON instead of a table'] as const;
const KEY_FILE = ['--key-file <file>', 'protects the keys of encrypted snapshots'] as const;
const STORE = ['--object-store <url>', "where the snapshots are (default: the running server's store)"] as const;

program
  .command('status')
  .description('how the server is')
  .option(...DATA_DIR)
  .option(...JSON_FLAG)
  .action(async (flags) => (await reports()).status(flags));
program
  .command('volumes')
  .description('the volumes, who uses them, and what is kept for pending snapshots')
  .option(...DATA_DIR)
  .option(...JSON_FLAG)
  .action(async (flags) => (await reports()).volumes(flags));
program
  .command('sets')
  .description('the snapshots, by the sets in which they were cut; the latest last')
  .option('--latest <n>', 'only so many sets', positiveInteger)
  .option(...DATA_DIR)
  .option(...JSON_FLAG)
  .action(async (flags) => (await reports()).sets(flags));
program
  .command('restore')
  .description('make a new instance with the whole set attached, usable at once')
  .argument('<set>', "the set's id, as 'cleancut sets' shows it")
  .option('--zone <name>', 'where the instance is to be (default: the first zone)')
  .option(...DATA_DIR)
  .option(...JSON_FLAG)
  .action(async (setId, flags) => (await reports()).restore(setId, flags));
program
  .command('export')
  .description('write a snapshot into a sparse raw file; needs the object store, and no server')
  .argument('<snapshot>')
  .argument('<file>', 'must not be there yet')
  .option(...STORE)
  .option(...KEY_FILE)
  .option(...DATA_DIR)
  .option(...JSON_FLAG)
  .action(async (snapshotId, file, flags) => (await images()).exportSnapshot(snapshotId, file, flags));
program
  .command('import')
  .description('make a snapshot of a raw file')
  .argument('<file>')
  .option('--description <text>')
  .option('--encrypted', 'encrypt it')
  .option('--kms-key <key>', 'under this key (default: the account’s default key)')
  .option(...STORE)
  .option(...KEY_FILE)
  .option(...DATA_DIR)
  .option(...JSON_FLAG)
  .action(async (file, flags) => (await images()).importFile(file, flags));
program
  .command('inspect')
  .description(
    'say in words what stands in a manifest, a pack, a snapshot record, a bitmap, old pages, an upload journal',
  )
  .argument('<target>', 'a snapshot id, the hex digits of a manifest node or pack, or a file below DIR/volumes')
  .option('--snapshot <id>', 'whose key opens an encrypted node')
  .option(...STORE)
  .option(...KEY_FILE)
  .option(...DATA_DIR)
  .option(...JSON_FLAG)
  .action(async (target, flags) => (await import('./inspect.ts')).inspect(target, flags));
program
  .command('verify')
  .description('read and check everything that snapshots name (all of them, unless some are given); needs no server')
  .argument('[snapshots...]')
  .option('--set <set>', 'those of one set')
  .option(...STORE)
  .option(...KEY_FILE)
  .option(...DATA_DIR)
  .option(...JSON_FLAG)
  .action(async (ids, flags) => (await import('./store-care.ts')).verify(ids, flags));
program
  .command('rebuild')
  .description('bring every completed snapshot back from the object store alone, into a new data directory')
  .requiredOption('--object-store <url>', 'the store that is left')
  .option('--archive-store <url>', 'where the archived snapshots are, if there are any')
  .option('--data-dir <dir>', 'the data directory to be (default: ./cleancut-data)')
  .option('--snapshots-only', 'leave out users, instances and volumes, of which the bucket has a copy, too')
  .option(...JSON_FLAG)
  .action(async (flags) => (await import('./store-care.ts')).rebuild(flags));
program
  .command('gc')
  .description('free what nothing needs any more in the object store; it runs by itself once a day, too')
  .option('--dry-run', 'only say what it would free')
  .option('--insist', 'where snapshots are always being stored: wait for those, and let others begin only after it')
  .option(...DATA_DIR)
  .option(...JSON_FLAG)
  .action(async (flags) => (await reports()).collectGarbage(flags));
const ACCOUNT = ['--account <digits>', "the user's account, twelve digits (default: 000000000001)"] as const;
const users = () => import('./user.ts');
const user = program.command('user').description('manage who may use the API, and what they may do');
user
  .command('create')
  .description('make a user and its access key; the secret is shown this once')
  .argument('<name>')
  .option('--policy <file>', 'an IAM policy document (default: an administrator of the account)')
  .option(...ACCOUNT)
  .option(...DATA_DIR)
  .option(...JSON_FLAG)
  .action(async (name, flags) => (await users()).createUser(name, flags));
user
  .command('list')
  .option('--account <digits>', 'of this account alone')
  .option(...DATA_DIR)
  .option(...JSON_FLAG)
  .action(async (flags) => (await users()).listUsers(flags));
user
  .command('rotate')
  .description('a new access key in place of the old ones, which end at once')
  .argument('<name>')
  .option(...ACCOUNT)
  .option(...DATA_DIR)
  .option(...JSON_FLAG)
  .action(async (name, flags) => (await users()).rotateUser(name, flags));
for (const [verb, enabled] of [
  ['disable', false],
  ['enable', true],
] as const) {
  user
    .command(verb)
    .argument('<name>')
    .option(...ACCOUNT)
    .option(...DATA_DIR)
    .option(...JSON_FLAG)
    .action(async (name, flags) => (await users()).enableUser(name, enabled, flags));
}
user
  .command('delete')
  .argument('<name>')
  .option(...ACCOUNT)
  .option(...DATA_DIR)
  .option(...JSON_FLAG)
  .action(async (name, flags) => (await users()).deleteUser(name, flags));
user
  .command('attach-policy')
  .description('attach an IAM policy document to a user, or change it')
  .argument('<name>')
  .argument('<policy>', 'a name for it')
  .argument('<file>', 'the document, JSON')
  .option(...ACCOUNT)
  .option(...DATA_DIR)
  .option(...JSON_FLAG)
  .action(async (name, policy, file, flags) => (await users()).setPolicy(name, policy, file, flags));
user
  .command('detach-policy')
  .description('take a policy away from a user')
  .argument('<name>')
  .argument('<policy>')
  .option(...ACCOUNT)
  .option(...DATA_DIR)
  .option(...JSON_FLAG)
  .action(async (name, policy, flags) => (await users()).setPolicy(name, policy, undefined, flags));

const key = program.command('key').description('manage the KMS keys under which volumes and snapshots are encrypted');
key
  .command('create')
  .option('--alias <name>', 'alias/NAME')
  .option('--description <text>')
  .option(...DATA_DIR)
  .option(...JSON_FLAG)
  .action(async (flags) => (await import('./key.ts')).createKey(flags));
key
  .command('list')
  .option(...DATA_DIR)
  .option(...JSON_FLAG)
  .action(async (flags) => (await import('./key.ts')).listKeys(flags));
key
  .command('alias')
  .description('give a key an alias; one that another key had moves')
  .argument('<key>', 'its id, ARN, or an alias that it has')
  .argument('<alias>', 'alias/NAME')
  .option(...DATA_DIR)
  .option(...JSON_FLAG)
  .action(async (name, alias, flags) => (await import('./key.ts')).aliasKey(name, alias, flags));
key
  .command('rotate')
  .description('new material for what is encrypted from now on; the old still opens what it closed')
  .argument('<key>')
  .option(...DATA_DIR)
  .option(...JSON_FLAG)
  .action(async (name, flags) => (await import('./key.ts')).rotateKey(name, flags));
for (const [verb, enabled] of [
  ['disable', false],
  ['enable', true],
] as const) {
  key
    .command(verb)
    .argument('<key>')
    .option(...DATA_DIR)
    .option(...JSON_FLAG)
    .action(async (name, flags) => (await import('./key.ts')).enableKey(name, enabled, flags));
}
program
  .command('demo')
  .description('see the main job done, and proven, in under a minute')
  .action(async () => (await import('./demo.ts')).demo());

process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  // Who reads no more (`cleancut sets | head`) has seen enough.
  if (error.code === 'EPIPE') return;
  process.stderr.write(`cleancut: what it prints could not be written: ${error.message}\n`);
  process.exitCode = 1;
});
try {
  await program.parseAsync();
} catch (error) {
  process.stderr.write(`cleancut: ${(error as Error).message}\n`);
  process.exitCode = 1;
}
