import { Command, Option } from 'commander';
import { readVersion } from '../server/version.ts';
import { serve } from './serve.ts';

const program = new Command('cleancut')
  .description('Crash-consistent snapshots of all the volumes of an instance, at one instant, kept in S3.')
  .version(readVersion())
  .showHelpAfterError();

program
  .command('serve')
  .description('run the server: the EC2 API over HTTP, the volumes over NBD')
  .option('--data-dir <dir>', 'where the catalog and the volumes live (default: ./cleancut-data)')
  .option('--host <address>', 'loopback address to listen on (default: 127.0.0.1)')
  .option('--port <port>', 'of the API; 0 takes any free one (default: 8773)')
  .option('--nbd-port <port>', 'of NBD over TCP; 0 takes any free one, off means the unix socket alone (default: off)')
  .option('--object-store <url>', 'file:///PATH or s3://BUCKET/PREFIX?endpoint=…&region=…&path-style=true')
  .option('--region <name>', 'the region that this endpoint says it is (default: us-east-1)')
  .option('--zones <names>', 'its zones, separated by commas', (names: string) => names.split(','))
  .option('--account-id <digits>', 'the default account (default: 000000000001)')
  .option('--workers <count>', 'data-plane processes (default: one for each core, at least 2)')
  .option('--hold-deadline-ms <ms>', 'how long writes may be held for a cut (default: 1000)')
  .option('--staging-limit-gib <gib>', 'old pages kept for one volume’s pending snapshots (default: 64)')
  .option('--upload-patience-hours <hours>', 'how long an upload tries while the object store fails (default: 24)')
  .addOption(new Option('--log-level <level>').choices(['debug', 'info', 'warn', 'error', 'silent']))
  .option('--config <file>', 'settings as JSON: { "dataDir": "/srv/cleancut", … }')
  .addHelpText('after', '\nEach setting is also read from the environment: CLEANCUT_DATA_DIR, CLEANCUT_PORT, …')
  .action(serve);

try {
  await program.parseAsync();
} catch (error) {
  process.stderr.write(`cleancut: ${(error as Error).message}\n`);
  process.exitCode = 1;
}
