import { chmod, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { connectionOf, connectionOfUrl } from "../../src/job/connection.ts";
import { redactSecrets, resolveSecret, type SecretSurroundings } from "../../src/job/secrets.ts";

const signal = new AbortController().signal;

function surroundings(folder: string, env: Record<string, string> = {}, warnings: string[] = []): SecretSurroundings {
  return { folder, env, signal, warn: (message) => warnings.push(message) };
}

describe("the URL of a database", () => {
  test.each([
    [
      "postgres://u:p%40ss@h:5433/d%20b",
      { host: "h", port: 5433, user: "u", password: "p@ss", database: "d b", tls: "verify-full" },
    ],
    ["postgresql://u@127.0.0.1/d", { host: "127.0.0.1", port: 5432, tls: "off", password: undefined }],
    ["postgres://u@[::1]:1/d", { host: "::1", port: 1, tls: "off" }],
    [
      "postgres:///d?host=/run/postgresql&port=5444",
      { host: "/run/postgresql", port: 5444, database: "d", tls: "off" },
    ],
    ["postgres://u@h/d?sslmode=require", { tls: "insecure" }],
    ["postgres://u@h/d?sslmode=verify-ca", { tls: "ca" }],
  ])("%s is understood", async (url, expected) => {
    expect(await connectionOfUrl(url, { env: {} })).toMatchObject(expected);
  });

  test.each([
    ["postgres://u@h/d?sslmode=prefer", /may end without encryption/],
    ["postgres://u@h/d?sslcert=/etc/passwd", /unknown parameter sslcert/],
    ["mysql://u@h/d", /only postgres is available yet/],
    ["postgres://u:p%zz@h/d", /hexadecimal/],
    ["shop", /not a URL/],
  ])("%s is refused", async (url, message) => {
    await expect(connectionOfUrl(url, { env: {} })).rejects.toThrow(message);
  });

  test("takes its password from PGPASSWORD, then from a password file that nobody else can read", async () => {
    const folder = await mkdtemp(join(tmpdir(), "rowkeep-test-"));
    const file = join(folder, "pgpass");
    await writeFile(file, "# a comment\nother:*:*:*:no\nh:5432:d\\:b:u:from:file\n", { mode: 0o600 });

    const fromEnv = await connectionOfUrl("postgres://u@h/d:b", { env: { PGPASSWORD: "from env", PGPASSFILE: file } });
    const fromFile = await connectionOfUrl("postgres://u@h/d:b", { env: { PGPASSFILE: file } });
    await chmod(file, 0o644);
    const open = await connectionOfUrl("postgres://u@h/d:b", { env: { PGPASSFILE: file } });

    expect([fromEnv.password, fromFile.password, open.password]).toEqual(["from env", "from:file", undefined]);
    await rm(folder, { recursive: true });
  });
});

describe("a secret", () => {
  test("comes from the environment, a file or a command, and is hidden in every output afterwards", async () => {
    const folder = await mkdtemp(join(tmpdir(), "rowkeep-test-"));
    await writeFile(join(folder, "pw"), "canary-of-file\n", { mode: 0o600 });
    const where = surroundings(folder, { PATH: process.env["PATH"] ?? "", NAME: "canary-of-env" });

    const fromEnv = await resolveSecret("postgres://u:${env:NAME}@h/d", "source.url", where);
    const fromFile = await resolveSecret("file:pw", "source.password", where);
    const fromCommand = await resolveSecret("cmd:echo canary-of-command", "source.password", where);

    expect([fromEnv, fromFile, fromCommand]).toEqual([
      "postgres://u:canary-of-env@h/d",
      "canary-of-file",
      "canary-of-command",
    ]);
    expect(redactSecrets(`x canary-of-env y canary-of-file z canary-of-command`)).toBe("x *** y *** z ***");
    await rm(folder, { recursive: true });
  });

  test.each([
    ["${env:MISSING_ONE}", /the environment has no MISSING_ONE/],
    ["file:missing", /missing does not exist/],
    ["cmd:echo leaked-canary >&2; exit 3", /its command ended with 3/],
    ["cmd:echo leaked-canary; kill -9 $$", /its command was ended by SIGKILL/],
    ["cmd:yes leaked-canary", /its command printed more than 1 MiB/],
    ["file:.", /is a folder/],
    ["leaked-canary${env:MY-NAME}", /a \$\{env: is no \$\{env:NAME\}/],
    ["keychain:x", /not available yet/],
  ])("%s says which field cannot be resolved, and nothing secret", async (text, message) => {
    const resolving = resolveSecret(
      text,
      "source.password",
      surroundings(tmpdir(), { PATH: process.env["PATH"] ?? "" }),
    );

    await expect(resolving).rejects.toThrow(message);
    await expect(resolving).rejects.toThrow(/source\.password/);
    await expect(resolving).rejects.not.toThrow(/leaked-canary/);
  });

  test("in a file that others can read is used with a warning", async () => {
    const folder = await mkdtemp(join(tmpdir(), "rowkeep-test-"));
    await writeFile(join(folder, "pw"), "open-secret\n");
    await chmod(join(folder, "pw"), 0o644);
    const warnings: string[] = [];

    await resolveSecret("file:pw", "source.password", surroundings(folder, {}, warnings));

    expect(warnings).toEqual([expect.stringMatching(/pw can be read by other users/)]);
    await rm(folder, { recursive: true });
  });

  test("beside a URL gives the URL's login its password", async () => {
    const connection = await connectionOf(
      { url: "postgres://u@h/d", password: "${env:PW}" },
      surroundings("/", { PW: "beside-the-url" }),
    );

    expect(connection).toMatchObject({ user: "u", password: "beside-the-url" });
  });
});
