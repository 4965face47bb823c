import { readdirSync, readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { parse } from "yaml";
import { OperationalError } from "../../src/base/errors.ts";
import { unavailableIn } from "../../src/job/availability.ts";
import { checkJob } from "../../src/job/check-job.ts";
import { destinationSettingsOf } from "../../src/job/destination-settings-of.ts";
import { renderJobJsonSchema } from "../../src/job/job-json-schema.ts";
import { renderEnabled, renderJobText } from "../../src/job/job-text.ts";

const good = "version: 1\nsource: { url: postgres://h/d }\ndestinations:\n  - { type: local, path: x }\n";

function problemsOf(text: string, defaults?: string): string {
  const texts = [
    ...(defaults === undefined ? [] : [{ path: "/h/defaults.yaml", text: defaults }]),
    { path: "/h/a.yaml", text },
  ];
  try {
    checkJob(texts);
  } catch (error) {
    if (error instanceof OperationalError && error.kind === "job" && error.code === "invalid-job") return error.message;
    throw error;
  }
  return "valid";
}

describe("a job file", () => {
  test.each([
    [
      "an unknown field, with the nearest known one",
      `${good}paralel: 2\n`,
      "/h/a.yaml:5:1: paralel: unknown field, did you mean parallel?",
    ],
    [
      "two destinations that would be called the same",
      good.replace(
        "  - { type: local, path: x }",
        "  - { type: s3, bucket: b, endpoint: http://one }\n  - { type: s3, bucket: b, endpoint: http://two }",
      ),
      "/h/a.yaml:5:5: destinations[1]: two are called s3:b: leave one out, or give it a name",
    ],
    [
      "an ARN that is to stand in the path of an address",
      good.replace(
        "{ type: local, path: x }",
        '{ type: s3, bucket: "arn:aws:s3:eu-west-3:123456789012:accesspoint/a", pathStyle: true }',
      ),
      "destinations[0].bucket: an ARN cannot stand in the path of an address: leave pathStyle out",
    ],
    ...["http://127.0.0.1:9000", "https://[::1]"].map((endpoint): [string, string, string] => [
      `an ARN that is to stand in front of ${endpoint}`,
      good.replace(
        "{ type: local, path: x }",
        `{ type: s3, bucket: "arn:aws:s3:eu-west-3:123456789012:accesspoint/a", endpoint: "${endpoint}" }`,
      ),
      "destinations[0].bucket: an ARN cannot stand in front of an IP address: give the endpoint a host name, or leave it out",
    ]),
    [
      "an unknown field of a destination",
      good.replace("path", "paht"),
      "4:20: destinations[0].paht: unknown field, did you mean path?",
    ],
    [
      "a missing field at the place where it belongs",
      "version: 1\nsource: { url: x }\n",
      "/h/a.yaml:1:1: destinations: is missing",
    ],
    [
      "a number where text belongs",
      good.replace("postgres://h/d", "x, password: 0123"),
      "source.password: must be a string, not a number: quote it",
    ],
    [
      "1e5, which YAML takes for a number",
      good.replace("postgres://h/d", "x, user: 1e5"),
      "source.user: must be a string, not a number: quote it",
    ],
    [
      "text where a list belongs",
      good.replace("  - { type: local, path: x }", "  x"),
      "destinations: must be a list, not a string",
    ],
    ["yes, which YAML takes for text", `${good}enabled: yes\n`, "enabled: must be true or false, not a string"],
    ["a number without an end", `${good}parallel: .inf\n`, "parallel: must be a number, not Infinity"],
    ["a field that objects have", `${good}__proto__: { parallel: 2 }\n`, "/h/a.yaml:5:1: __proto__: unknown field"],
    [
      "aliases of aliases that would fill the memory",
      `${good}a: &a [${"x,".repeat(9)}]\nb: &b [${"*a,".repeat(9)}]\nfiles: [${"*b,".repeat(9)}]\n`,
      "/h/a.yaml:1:1: its aliases stand for too much: write it out",
    ],
    ["a tab", good.replace("  - {", "\t- {"), "/h/a.yaml:4:1: a tab stands where only spaces may: indent with spaces"],
    [
      "a cron expression that YAML takes for an alias",
      `${good}schedule:\n  full: */5 * * * *\n`,
      'must be quoted: full: "*/5 * * * *"',
    ],
    [
      "a schedule that is none",
      `${good}schedule: { full: "61 * * * *" }\n`,
      "/h/a.yaml:5:19: schedule.full: 61 * * * * is not a cron expression of five fields",
    ],
    [
      "a schedule of six fields",
      `${good}schedule: { incremental: "0 0 * * * *" }\n`,
      "schedule.incremental: 0 0 * * * * is not a cron expression of five fields",
    ],
    ["a schedule without a firing", `${good}schedule: { full: "0 0 30 2 *" }\n`, "0 0 30 2 * never fires"],
    [
      "a time zone that is none",
      `${good}schedule: { full: "0 2 * * *", timezone: Europe/Pariss }\n`,
      "/h/a.yaml:5:42: schedule.timezone: Europe/Pariss is no time zone",
    ],
    ["a last day that is none", `${good}schedule: { until: 2027-02-30 }\n`, "schedule.until: 2027-02-30 is not in"],
    [
      "two letters that changed places",
      good.replace("{ url", "{ tsl: off, url"),
      "source.tsl: unknown field, did you mean tls?",
    ],
    ["a key that stands twice", `${good}version: 1\n`, "/h/a.yaml:5:1: Map keys must be unique"],
    [
      "a wrong type of destination",
      good.replace("local", "lokal"),
      "destinations[0].type: unknown type; known: local, s3",
    ],
    ["a retention that keeps nothing", `${good}retention: {}\n`, "retention: keeps nothing"],
    ["a retention of zeros", `${good}retention: { keepLast: 0, keepWithin: 0d }\n`, "5:12: retention: keeps nothing"],
    [
      "a retention of a destination that keeps nothing",
      good.replace("path: x", "path: x, retention: { keepDaily: 0 }"),
      "destinations[0].retention: keeps nothing",
    ],
    [
      "a retention beside naming: overwrite",
      `${good}naming: overwrite\nretention: { keepLast: 3 }\n`,
      "/h/a.yaml:6:12: retention: stands beside naming: overwrite",
    ],
    ["a list in place of fields", "- a\n", "/h/a.yaml:1:1: the file must hold fields"],
    [
      "a bandwidth without a unit",
      good.replace("path: x", 'path: x, bandwidth: "10"'),
      'destinations[0].bandwidth: must be a size with a unit: "10MB"',
    ],
    [
      "a bandwidth at which nothing would arrive",
      good.replace("path: x", "path: x, bandwidth: 9kB"),
      "destinations[0].bandwidth: must be at least 10kB",
    ],
    [
      "a share of more than everything",
      `${good}safety: { maxShrink: 500% }\n`,
      'must be a percentage up to 100%: "50%"',
    ],
    ["a duration without a unit", `${good}retention: { keepWithin: "30" }\n`, 'must be a number with a unit: "30d"'],
  ])("is refused for %s", (_what, text, expected) => {
    expect(problemsOf(text)).toContain(expected);
  });

  test("has all its problems told at once", () => {
    const message = problemsOf(`${good}paralel: 2\nmode: fast\nretention: { keepLast: -1 }\n`);

    expect(message).toContain("3 problems");
  });

  test("takes what it does not say from defaults.yaml, and blames the right file", () => {
    const texts = (own: string, defaults: string) => [
      { path: "/h/defaults.yaml", text: defaults },
      { path: "/h/a.yaml", text: own },
    ];

    const job = checkJob(texts(good, "parallel: 4\ncompression: { level: 3 }\n"));

    expect([job.parallel, job.compression?.level]).toEqual([4, 3]);
    expect(problemsOf(good, "parallel: many\n")).toContain("/h/defaults.yaml:1:11: parallel: must be a number");
  });

  test("says that a state in defaults.yaml is not available yet", () => {
    const problems = problemsOf(good, "state: postgres://h/d\n");

    expect(problems).toBe("cannot use the job file /h/defaults.yaml:1:1: state: not available yet");
  });

  test("may overwrite although defaults.yaml has a retention for the others", () => {
    expect(problemsOf(`${good}naming: overwrite\n`, "retention: { keepLast: 3 }\n")).toBe("valid");
  });

  test("may say everything that later versions will do, and run refuses that by name", () => {
    const job = checkJob([
      {
        path: "/h/a.yaml",
        text: `${good}retention: { keepLast: 7 }\nencryption: { passphrase: x }\ndr: { url: y, autoRestore: true }\n`,
      },
    ]);

    const missing = unavailableIn({ ...job, name: "a", path: "/h/a.yaml", folder: "/h" });

    expect(missing).toEqual(expect.arrayContaining(["dr.autoRestore"]));
  });
});

test.each([
  ["10MB", 10_000_000],
  ["800kB", 800_000],
  ["1.5 GiB", 1_610_612_736],
  ["20000b", 20_000],
])("a destination with the bandwidth %s moves %i bytes per second", async (written, bytesPerSecond) => {
  const { destinations } = checkJob([
    { path: "/h/a.yaml", text: good.replace("path: x", `path: x, bandwidth: ${written}`) },
  ]);
  const [destination] = destinations;
  if (!destination) throw new Error("the job has no destination");

  const settings = await destinationSettingsOf(destination, 0, {
    env: {},
    folder: "/h",
    signal: new AbortController().signal,
  });

  expect(settings).toEqual({ type: "local", path: "/h/x", bandwidth: bytesPerSecond });
});

test("every type of destination can have a name and a bandwidth", () => {
  const variants = JSON.stringify(renderJobJsonSchema()).match(/"const":"(local|s3|azure|gcs|ftp|sftp)"/g);

  const bandwidths = JSON.stringify(renderJobJsonSchema()).match(/"bandwidth":/g);

  expect(variants?.length).toBeGreaterThanOrEqual(6);
  expect(bandwidths?.length).toBe(variants?.length);
});

test("the examples are valid jobs", () => {
  const folder = new URL("../../examples/", import.meta.url);
  const files = readdirSync(folder);

  const jobs = files.map((file) => checkJob([{ path: file, text: readFileSync(new URL(file, folder), "utf8") }]));

  expect(jobs.length).toBeGreaterThanOrEqual(3);
});

test("the job file in the README is a valid job", () => {
  const readme = readFileSync(new URL("../../README.md", import.meta.url), "utf8");
  const text = /^```yaml\n(.*?)^```$/ms.exec(readme)?.[1] ?? "";

  const job = checkJob([{ path: "/h/shop.yaml", text }]);

  expect(job.destinations).toHaveLength(2);
});

test("the JSON Schema describes every field of the job and forbids others", () => {
  const schema = renderJobJsonSchema() as {
    properties: Record<string, { description?: string }>;
    additionalProperties: boolean;
  };

  expect(schema.additionalProperties).toBe(false);
  expect(Object.keys(schema.properties)).toEqual(
    expect.arrayContaining(["source", "destinations", "retention", "dr", "parallel"]),
  );
});

test("a job that was made by questions is valid, and switching it off keeps its comments", () => {
  const text = renderJobText({
    name: "shop",
    url: "postgres://u@h/d",
    full: "0 2 * * *",
    destinations: [{ type: "local", path: "/b" }],
  });

  const off = renderEnabled(text, false);

  expect(checkJob([{ path: "a", text }]).schedule?.full).toBe("0 2 * * *");
  expect(checkJob([{ path: "a", text: off }]).enabled).toBe(false);
  expect(off).toContain("# The database.");
  expect(renderEnabled(off, true)).toBe(text);
});

const LONG =
  '  - { type: s3, bucket: backups, prefix: shop, region: eu-west-3, endpoint: "https://objects.example", storageClass: GLACIER }';

describe("switching a job off and on again", () => {
  test.each([
    ["long entries on one line", `version: 1\nname: shop # ours\n\ndestinations:\n${LONG}\n`],
    ["odd spaces and quotes", "version:   1\nname: 'shop'\ndestinations: [ {type: local,path: x} ]\n# the end\n"],
    ["line ends of Windows", `version: 1\r\nname: shop\r\ndestinations:\r\n${LONG}\r\n`],
    ["an indented file", "  version: 1\n  name: shop\n"],
    ["a text of several lines at its end", `version: 1\ndestinations:\n${LONG}\nname: |\n  shop\n  enabled: false\n`],
    [
      "one line of JSON",
      `{"version":1,"name":"shop","destinations":[{"type":"local","path":"/b","bandwidth":"10MB"}]}`,
    ],
  ])("changes nothing else in %s", (_, text) => {
    const off = renderEnabled(text, false);
    const on = renderEnabled(off, true);

    expect(parse(off)).toEqual({ ...parse(text), enabled: false });
    expect(off.replace(/^\{"enabled": false, /, "{").replace(/ *enabled: false\r?\n$/, "")).toBe(text);
    expect(on).toBe(text);
  });

  test("changes only the value where the file has one", () => {
    const text = `version: 1\nenabled: true   # while the shop is open\ndestinations:\n${LONG}\n`;

    const off = renderEnabled(text, false);

    expect(off).toBe(text.replace("true ", "false "));
    expect(renderEnabled(off, true)).toBe(text);
    expect(renderEnabled(text, true)).toBe(text);
  });

  test("works, too, where a line cannot be added", () => {
    const off = renderEnabled("version: 1\nname: shop\n...\n", false);

    expect(parse(off)).toEqual({ version: 1, name: "shop", enabled: false });
  });
});
