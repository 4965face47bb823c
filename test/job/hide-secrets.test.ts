import { parse } from "yaml";
import { expect, test } from "vitest";
import { hideSecrets, hideSecretsInText } from "../../src/job/hide-secrets.ts";

const JOB = `# the shop
version: 1
source: { host: db, user: me, password: canary-1, database: shop }   # flow
encryption:
  passphrase: 'canary-2 with words'
  identity: \${env:KEY}
destinations:
  - type: s3
    bucket: password
    accessKeyId: canary-3
    secretAccessKey: "pre\${env:X}canary-4"
    prefix: keys
  - type: sftp
    path: /password
    hostKey: SHA256:abc
    password: file:~/.secret
    privateKey: |
      -----BEGIN canary-5
      canary-6
      -----END
    passphrase: &again
      canary-7
  - { type: azure, container: c, connection: cmd:secret-tool x, sas: ?sv=canary-8 }
notify: { webhook: https://hooks.example/canary-9 }
`;

test("a job file is shown with secrets hidden, references and everything else as written", () => {
  const shown = hideSecretsInText(JOB);

  expect(shown).not.toContain("canary");
  expect(shown).toContain(
    '# the shop\nversion: 1\nsource: { host: db, user: me, password: "***", database: shop }   # flow\n',
  );
  for (const kept of [
    "${env:KEY}",
    "file:~/.secret",
    "cmd:secret-tool x",
    "bucket: password",
    "SHA256:abc",
    "prefix: keys",
  ]) {
    expect(shown).toContain(kept);
  }
  expect(Object.keys(parse(shown))).toEqual(Object.keys(parse(JOB)));
});

test("the record of a job hides the same", () => {
  const hidden = hideSecrets(parse(JOB));

  expect(JSON.stringify(hidden)).not.toContain("canary");
  expect(hidden).toEqual(parse(hideSecretsInText(JOB)));
});
