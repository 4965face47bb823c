import { z } from "zod";
import { jobSchema } from "./job-schema.ts";

/** Renders the JSON Schema of job files for editors, from the definition that reads them. */
export function renderJobJsonSchema(): Record<string, unknown> {
  return { ...z.toJSONSchema(jobSchema, { target: "draft-7" }), title: "rowkeep job" };
}
