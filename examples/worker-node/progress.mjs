// Reports a document by the table alone, for a stack with fanOut: stream. Its rules are in PROTOCOL.md, "Writing states".
import { randomUUID } from "node:crypto";
import { crc32 } from "node:zlib";
import { DynamoDBClient, UpdateItemCommand } from "@aws-sdk/client-dynamodb";
import { marshall } from "@aws-sdk/util-dynamodb";

const AT_WORK = "#status IN (:pending, :started, :progress)";
const HELD = `#run_id = :run AND #attempt = :attempt AND ${AT_WORK}`;
const NEWEST = `attribute_not_exists(#pk)
  OR (#run_id <> :run AND (attribute_not_exists(#run_order) OR #run_order <= :order)
      AND NOT (#run_id = :no_run AND #status = :error))`;
const LATE = "AND NOT :run IN (#past_run_1, #past_run_2, #past_run_3)";
const FREE = `#run_id = :run AND ((#status = :error AND #recoverable = :true) OR (${AT_WORK} AND #heard_at < :silent))`;
const REMEMBER = ["run_id", "past_run_1", "past_run_2"].map((name, n) => `#past_run_${n + 1} = if_not_exists(#${name}, :no_run)`);
const WORDS = { pending: "pending", started: "processing_started", progress: "progress", error: "error", no_run: "-", true: true, zero: 0, one: 1 };
const SAID_BY_A_RUN = ["total_pages", "unit", "message", "phase", "result", "pages_unreadable", "error_code", "error_message", "recoverable", "announced", "correlation_id"];

export class Refused extends Error {} // the run has ended, was replaced, or is another worker's
export class Cancelled extends Refused {}

export class Document {
  // order grows with each run of a document: a number, or a BigInt as S3's sequencer is one.
  constructor(id, { client = new DynamoDBClient({}), table = process.env.TABLE_NAME, now = Date.now, ...run } = {}) {
    const retention = Number(process.env.DOCUMENT_RETENTION_SECONDS ?? 86_400);
    Object.assign(this, { id, client, table, now, retention, run: randomUUID(), order: now(), worker: randomUUID().slice(0, 8) });
    Object.assign(this, { counted: 0, pages: 0, told: 0, isOrdered: run.order !== undefined }, run);
  }

  async begin() {
    const set = { status: "pending", run_id: this.run, run_order: this.order, retries_left: 0, pages_processed: 0, tallies: {} };
    const takeUp = (condition, compute = []) =>
      this.#write(condition, {
        set: { ...set, active_shard: this.#shard(), write_id: randomUUID() },
        compute: ["#attempt = if_not_exists(#attempt, :zero) + :one", ...compute],
        remove: SAID_BY_A_RUN,
      });
    try {
      const row = await takeUp(this.isOrdered ? NEWEST : `(${NEWEST}) ${LATE}`, REMEMBER).catch((error) => {
        if (error.row?.run_id?.S !== this.run) throw error;
        return takeUp(FREE); // the next attempt at the same run
      });
      this.attempt = Number(row.attempt.N);
    } catch (error) {
      // Cancelled before it began: this is the run that must not be. The next one may.
      const noted = { set: { run_id: this.run, run_order: this.order }, times: {} };
      if (error.row?.run_id?.S === "-") await this.#write("#run_id = :no_run", noted);
      throw error;
    }
    this.alive = setInterval(() => this.heartbeat().catch(() => clearInterval(this.alive)), 20_000).unref();
  }

  start = (total) => this.#publish({ status: "processing_started", total_pages: total });

  async advance(pages = 1, message = undefined) {
    this.pages += pages;
    // At most 4 a second. What is not written now is written with the next.
    if (this.now() - this.told >= 250) await this.#publish({ status: "progress", message });
  }

  complete = (result) => this.#end({ status: "processing_complete", result: result && JSON.stringify(result) }, ["phase"]);
  fail = (message, code = "PROCESSING_FAILED") =>
    this.#end({ status: "error", error_code: code, error_message: message, recoverable: false });
  heartbeat = () => this.#write(HELD, {});

  async #end(said, remove = []) {
    if (Buffer.byteLength(said.result ?? "") > 2048) throw new RangeError("A result has at most 2048 bytes as JSON.");
    await this.#publish({ ...said, active_shard: this.#shard() }, ["tallies", "message", ...remove], true);
    clearInterval(this.alive);
  }

  async #publish(said, remove = [], ends = false) {
    const { pages, counted } = this, write_id = randomUUID();
    const tally = counted ? "#tallies.#worker = :counted" : "attribute_not_exists(#tallies.#worker)";
    try {
      await this.#write(pages ? `${HELD} AND ${tally}` : HELD, {
        set: { ...said, write_id, published_at: this.now() },
        compute: ["#sequence = if_not_exists(#sequence, :now) + :one", ...(pages && !ends ? ["#tallies.#worker = :after"] : [])],
        remove,
        add: pages ? " ADD #pages_processed :pages" : "",
      });
    } catch (error) {
      // The SDK repeats a write whose answer was lost, so it may be made already, or an earlier one with fewer pages.
      const missed = Number(error.row?.tallies?.M[this.worker]?.N ?? 0) - counted;
      if (error.row?.write_id?.S !== write_id) {
        if (!pages || missed <= 0 || !this.#holds(error.row)) throw error;
        Object.assign(this, { counted: counted + missed, pages: Math.max(0, pages - missed) });
        return this.pages || ends ? this.#publish(said, remove, ends) : undefined;
      }
    }
    Object.assign(this, { counted: counted + pages, pages: this.pages - pages, told: this.now() });
  }

  async #write(condition, { set = {}, compute = [], remove = [], add = "", times = this.#times() }) {
    const values = Object.fromEntries(Object.entries({ ...set, ...times }).filter(([, value]) => value !== undefined));
    const sets = [...Object.keys(values).map((name) => `#${name} = :set_${name}`), ...compute];
    const removes = remove.length ? ` REMOVE ${remove.map((name) => `#${name}`)}` : "";
    const update = `SET ${sets}${removes}${add}`, all = `${update} ${condition}`;
    const { run, order, attempt, counted, pages } = this, now = this.now();
    const given = { ...WORDS, run, order, attempt, counted, pages, after: counted + pages, now, silent: now - 45_000 };
    for (const [name, value] of Object.entries(values)) given[`set_${name}`] = value;
    // DynamoDB refuses names and values that no expression uses.
    const used = (sign, known) => Object.fromEntries([...all.matchAll(RegExp(`${sign}(\\w+)`, "g"))].map(([each, name]) => [each, known(name)]));
    try {
      const answer = await this.client.send(
        new UpdateItemCommand({
          TableName: this.table,
          Key: marshall({ pk: `DOCUMENT#${this.id}`, sk: "STATE" }),
          UpdateExpression: update,
          ConditionExpression: condition,
          ExpressionAttributeNames: used("#", (name) => (name === "worker" ? this.worker : name)),
          ExpressionAttributeValues: marshall(used(":", (name) => given[name])),
          ReturnValues: "ALL_NEW",
          ReturnValuesOnConditionCheckFailure: "ALL_OLD",
        }),
      );
      return answer.Attributes;
    } catch (error) {
      if (error.name !== "ConditionalCheckFailedException") throw error;
      const row = error.Item;
      const Kind = row?.error_code?.S === "CANCELLED" && row.run_id.S === run ? Cancelled : Refused;
      throw Object.assign(new Kind(`run ${run} of document ${this.id} has ended, was replaced or is another worker's`), { row });
    }
  }

  #holds = (row) => row?.run_id.S === this.run && row.attempt?.N === String(this.attempt) && !/complete|error/.test(row.status.S);
  #shard = () => `ACTIVE#${crc32(this.id) % 8}`;

  #times() {
    const now = this.now(), offset = crc32(this.id) % 15_000;
    const updated_at = Math.floor((now - offset) / 15_000) * 15_000 + offset;
    return { heard_at: now, updated_at, expires_at: Math.floor(now / 1000) + this.retention };
  }
}
