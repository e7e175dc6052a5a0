// Live progress of documents. A worker's role gets the policy `workerPolicy`, and the worker the variables `workerEnvironment`.
import * as docprogress from "@pulumi/docprogress";

const progress = new docprogress.DocumentProgress("progress", {
  allowedOrigins: ["https://app.example.com"],
  fanOut: docprogress.FanOut.STREAM,
});

export const { url, workerEnvironment, workerPolicy } = progress;
