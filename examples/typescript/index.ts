// Live progress of documents. A worker's role gets the policy `workerPolicy`, and the worker the variables `workerEnvironment`.
import * as docprogress from "@pulumi/docprogress";

const progress = new docprogress.DocumentProgress("progress", {
  allowedOrigins: ["https://app.example.com"],
  fanOut: docprogress.FanOut.STREAM,
  // Leave it out where this is not for trying out: plans then refuse to delete the table and the URL.
  disposable: true,
});

export const { url, workerEnvironment, workerPolicy } = progress;
