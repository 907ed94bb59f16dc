import { mkdirSync, writeFileSync } from 'node:fs';
import { tool } from './tools.ts';

/** An authority in a directory, with what it has signed. */
export type Authority = {
  /** PEM file. */
  certificate: string;
  /** @returns files of a certificate for that name */
  issue: (commonName: string) => Promise<{ cert: string; key: string }>;
  /** A directory as GnuTLS clients (nbdinfo, nbdcopy, qemu-img) want it: ca-cert.pem, client-cert.pem, client-key.pem. */
  clientDirectory: (commonName: string) => Promise<string>;
};

/** Makes a certificate authority with the openssl command. */
export async function makeAuthority(directory: string, name = 'test authority'): Promise<Authority> {
  mkdirSync(directory, { recursive: true });
  const key = `${directory}/ca.key`;
  const certificate = `${directory}/ca.pem`;
  const openssl = (...args: string[]): Promise<string> => tool('openssl', args);
  const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
  await openssl('req', '-x509', ...newKey, '-keyout', key, '-out', certificate, '-days', '2', '-subj', `/CN=${name}`);
  let serial = 1;
  const issueTo = async (commonName: string, prefix: string): Promise<{ cert: string; key: string }> => {
    const files = { cert: `${prefix}-cert.pem`, key: `${prefix}-key.pem` };
    const request = `${prefix}.csr`;
    await openssl('req', ...newKey, '-keyout', files.key, '-out', request, '-subj', `/CN=${commonName}`);
    const extensions = `${prefix}.ext`;
    writeFileSync(extensions, 'subjectAltName=DNS:localhost,IP:127.0.0.1\n');
    serial += 1;
    const signer = ['-CA', certificate, '-CAkey', key, '-set_serial', String(serial), '-days', '2'];
    await openssl('x509', '-req', '-in', request, ...signer, '-extfile', extensions, '-out', files.cert);
    return files;
  };
  return {
    certificate,
    issue: (commonName) => issueTo(commonName, `${directory}/issued-${serial}`),
    async clientDirectory(commonName) {
      const client = `${directory}/client-${serial}`;
      mkdirSync(client);
      await issueTo(commonName, `${client}/client`);
      await tool('cp', [certificate, `${client}/ca-cert.pem`]);
      return client;
    },
  };
}
