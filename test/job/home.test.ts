import { expect, test } from "vitest";
import { findHome } from "../../src/job/home.ts";

test("lies in the XDG folders, but in none that depends on where one is", () => {
  const of = (env: Readonly<Record<string, string>>) => {
    const { jobs, state } = findHome({ env: { HOME: "/home/me", ...env }, platform: "linux" });
    return [jobs, state];
  };

  const usual = of({});
  const absolute = of({ XDG_CONFIG_HOME: "/c", XDG_STATE_HOME: "/s" });
  const relative = of({ XDG_CONFIG_HOME: "c", XDG_STATE_HOME: "s" });
  const nowhere = of({ HOME: "" });

  expect(usual).toEqual(["/home/me/.config/rowkeep/jobs", "/home/me/.local/state/rowkeep"]);
  expect(absolute).toEqual(["/c/rowkeep/jobs", "/s/rowkeep"]);
  expect(relative).toEqual(usual);
  expect(nowhere[0]).toMatch(/^\/.*\.config/);
});
