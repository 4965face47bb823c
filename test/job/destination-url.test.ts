import { expect, test } from "vitest";
import { planSecretFiles } from "../../src/job/secret-files.ts";
import { parseDestinationUrl, parseFileUrl } from "../../src/job/destination-url.ts";
import { redactSecrets } from "../../src/job/secrets.ts";

const parse = (text: string) => parseDestinationUrl(text, "/work");

test.each([
  ["./backups", { type: "local", path: "/work/backups" }],
  ["file:///mnt/with%20space", { type: "local", path: "/mnt/with space" }],
  ["s3://My_Bucket", { type: "s3", bucket: "My_Bucket" }],
  [
    "s3://b/shop/db/?region=eu-west-3&endpoint=http://127.0.0.1:9000&pathStyle&storageClass=GLACIER",
    {
      type: "s3",
      bucket: "b",
      prefix: "shop/db",
      region: "eu-west-3",
      endpoint: "http://127.0.0.1:9000",
      pathStyle: true,
      storageClass: "GLACIER",
    },
  ],
  [
    "s3://b?accessKeyId=AK1&secretAccessKey=${env:S3_KEY}&bandwidth=10MB&name=far",
    { type: "s3", bucket: "b", accessKeyId: "AK1", secretAccessKey: "${env:S3_KEY}", bandwidth: "10MB", name: "far" },
  ],
  ["gs://b/p?keyFile=key.json", { type: "gcs", bucket: "b", prefix: "p", keyFile: "/work/key.json" }],
  ["azure://c/p?connection=${env:AZ}", { type: "azure", container: "c", prefix: "p", connection: "${env:AZ}" }],
  [
    "sftp://me@h.example:2222/back/ups/?hostKey=SHA256:a+b/c=&privateKey=file:~/.ssh/id_ed25519&agent=false",
    {
      type: "sftp",
      host: "h.example",
      port: 2222,
      user: "me",
      path: "/back/ups",
      hostKey: "SHA256:a+b/c=",
      privateKey: "file:~/.ssh/id_ed25519",
      agent: false,
    },
  ],
  [
    "sftp://me:${env:PW}@[::1]/~/b?hostKey=SHA256:x",
    { type: "sftp", host: "::1", user: "me", password: "${env:PW}", path: "b", hostKey: "SHA256:x" },
  ],
  [
    "ftp://a%40b@h?password=file:pw&ca=ca.pem",
    { type: "ftp", host: "h", user: "a@b", path: "/", password: "file:/work/pw", ca: "/work/ca.pem" },
  ],
  [
    "ftps://u@h/x?password=cmd:pass ftp",
    { type: "ftp", tls: "implicit", host: "h", user: "u", path: "/x", password: "cmd:pass ftp" },
  ],
])("reads %s", (text, expected) => {
  expect(parse(text)).toEqual(expected);
});

test.each([
  ["sftp://me:canary-1@h/p?hostKey=x"],
  ["ftp://me:p@ss/canary-2@h/p"],
  ["s3://b?secretAccessKey=canary-3"],
  ["s3://b?secretAccessKey=${env:A}canary-4"],
  ["azure://c?sas=canary-5"],
  ["azure://c?connection=AccountKey=canary-6"],
  ["sftp://me@h/p?hostKey=x&passphrase=canary-7"],
])("refuses the secret in %s and never repeats it", (text) => {
  let message = "";
  try {
    parse(text);
  } catch (error) {
    const { message: said, hint, code } = error as Error & { hint: string; code: string };
    message = `${code} ${said} ${hint}`;
  }

  expect(message).toMatch(/secret-in-url|invalid-destination/);
  expect(redactSecrets(message)).not.toContain("canary");
});

test.each([
  ["webdav://h/p", /webdav is no type of destination/],
  ["sftp://me@h/p", /hostKey is missing/],
  ["ftp://h/p", /user is missing/],
  ["s3:///p", /bucket/],
  ["s3://b?regoin=x", /regoin is no field of s3/],
  ["sftp://u@h:99999/p?hostKey=x", /port/],
  ["s3://b?pathStyle=perhaps", /pathStyle/],
  ["s3://arn:aws:s3:eu-west-3:123456789012:accesspoint?pathStyle", /an ARN cannot stand in the path/],
  ["s3://b?region=a&region=b", /region twice/],
  ["s3://b?type=local", /type twice/],
  ["s3://b/%zz", /hexadecimal/],
])("refuses %s", (text, reason) => {
  expect(() => parse(text)).toThrow(reason);
});

test("names the nearest field", () => {
  expect(() => parse("s3://b?regoin=x")).toThrow(expect.objectContaining({ hint: "Did you mean region?" }));
});

test.each([
  [
    "s3://b/x/y.rowkeep?region=r",
    { type: "s3", bucket: "b", prefix: "x", region: "r" },
    "y.rowkeep",
    "s3://b/x/y.rowkeep",
  ],
  ["s3://b/y.rowkeep", { type: "s3", bucket: "b" }, "y.rowkeep", "s3://b/y.rowkeep"],
  ["gs://b", { type: "gcs", bucket: "b" }, "", "gs://b/"],
  ["gs://b/x/", { type: "gcs", bucket: "b", prefix: "x" }, "", "gs://b/x/"],
  [
    "sftp://me@h:2200/~/x/y.rowkeep?hostKey=SHA256:a/b+c=",
    { type: "sftp", host: "h", port: 2200, user: "me", path: "x", hostKey: "SHA256:a/b+c=" },
    "y.rowkeep",
    "sftp://h:2200/~/x/y.rowkeep",
  ],
])("reads the URL of the file %s", (text, destination, key, place) => {
  expect(parseFileUrl(text, "/here")).toEqual({ destination, key, place });
});

test.each(["s3://b/a b", "s3://b/%2e%2e", "s3://b/..", "s3://b/é"])("refuses %s as the name of a file", (text) => {
  expect(() => parseFileUrl(text, "/here")).toThrow(
    expect.objectContaining({ kind: "usage", code: "invalid-destination" }),
  );
});

test("secrets that were typed go into files of their own, references and names stay", () => {
  const destinations = [
    { type: "s3", bucket: "b", accessKeyId: "AK", secretAccessKey: "canary" },
    { type: "ftp", host: "h", path: "/", user: "u", password: "${env:PW}" },
  ] as const;

  const plan = planSecretFiles({ secrets: "/home/secrets" }, "shop", destinations);

  expect(plan.files).toEqual([{ path: "/home/secrets/shop.s3-1.secretAccessKey", text: "canary\n" }]);
  expect(plan.destinations).toEqual([
    { ...destinations[0], secretAccessKey: "file:/home/secrets/shop.s3-1.secretAccessKey" },
    destinations[1],
  ]);
});

test.each([
  ["s3://b?endpoint=minio.local:9000", "endpoint: must begin with https:// or http://"],
  ["s3://b?endpoint=http://", "endpoint: must begin with https:// or http://"],
  ["azure://c?account=a&endpoint=a.example", "endpoint: must begin with https:// or http://"],
  ["azure://c?account=my account", "account: must be the name of a storage account"],
])("refuses what no SDK can make an address of: %s", (text, problem) => {
  expect(() => parse(text)).toThrow(problem);
});
