// Outputs in the form of notebook files, as the page has them. They come from files and from kernels: nothing in them is to be believed. Pure.

import type { Output } from "../reduce.ts";
import { emptyStream, utf8Length } from "../text.ts";
import { textOf } from "./mime.ts";

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** What can be shown of outputs. */
export function outputsOf(values: readonly unknown[]): readonly Output[] {
  return values.flatMap((one, key): Output[] => {
    if (!isRecord(one)) return [];
    switch (one["output_type"]) {
      case "stream": {
        const head = textOf(one["text"]) ?? "";
        return [{ ...emptyStream(key, one["name"] === "stderr" ? "stderr" : "stdout", 0), head, size: utf8Length(head) }];
      }
      case "display_data":
      case "execute_result": {
        const [data, metadata] = [one["data"], one["metadata"]];
        const isResult = one["output_type"] === "execute_result";
        return [{ kind: "bundle", key, data: isRecord(data) ? data : {}, metadata: isRecord(metadata) ? metadata : {}, displayId: null, isResult, seq: 0, weight: 0 }];
      }
      case "error": {
        const traceback = one["traceback"];
        return [{ kind: "error", key, seq: 0, weight: 0, ename: textOf(one["ename"]) ?? "", evalue: textOf(one["evalue"]) ?? "", traceback: Array.isArray(traceback) ? traceback.map(String) : [] }];
      }
      default: return [];
    }
  });
}
