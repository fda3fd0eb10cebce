// Prints findings as one JSON object a line: what is open, then each change.
//
//   npm install
//   NATS_URL=nats://127.0.0.1:4222 PRATIQUE_CREDS=team-a.creds npm start
//
// It needs nothing but public packages, the .proto files, and the credentials that `pratique subscriber add`
// made; the contract is docs/subscribing.md. It keeps nothing, so it takes the whole snapshot at each start.
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { join } from "node:path";
import { connect, credsAuthenticator } from "@nats-io/transport-node";
import { jetstream, type Consumer, type JsMsg } from "@nats-io/jetstream";
import protobuf from "protobufjs";
import { decompress } from "fzstd";

const env = process.env;
const url = env.NATS_URL ?? "nats://127.0.0.1:4222";
const creds = readFileSync(env.PRATIQUE_CREDS ?? "subscriber.creds");
const protos = env.PRATIQUE_PROTO ?? join(fileURLToPath(new URL(".", import.meta.url)), "../../../proto");

// The credentials say everything: which consumers, in which JetStream domain, and where answers may go.
function subscription(creds: Buffer) {
  const token = creds.toString().split("\n").find((line) => line.startsWith("eyJ"));
  if (!token) throw new Error("no credentials");
  const claims = JSON.parse(Buffer.from(token.split(".")[1], "base64url").toString());
  const pulls = (claims.nats.pub.allow as string[])
    .map((subject) => subject.match(/^\$JS\.([^.]+)\.API\.CONSUMER\.MSG\.NEXT\.((STATE|FINDINGS)[^.]*)\.([^.]+)$/))
    .filter((m) => m !== null);
  const of = (name: string) => {
    const m = pulls.find((m) => m[3] === name);
    if (!m) throw new Error("not a subscriber's credentials");
    return { domain: m[1], stream: m[2], consumer: m[4] };
  };
  const inbox = (claims.nats.sub.allow as string[]).find((subject) => subject.startsWith("_INBOX_"));
  return { state: of("STATE"), findings: of("FINDINGS"), inbox: inbox?.replace(/\.>$/, "") };
}

const root = new protobuf.Root();
root.resolvePath = (origin, target) =>
  target.startsWith("google/") ? protobuf.util.path.resolve(origin, target) : join(protos, target);
await root.load("pratique/v1/finding.proto");
const State = root.lookupType("pratique.v1.State");
const Delta = root.lookupType("pratique.v1.Delta");
const plain = { enums: String, longs: Number, defaults: false };

const names = subscription(creds);
const nc = await connect({
  servers: url, authenticator: credsAuthenticator(creds), inboxPrefix: names.inbox, maxReconnectAttempts: -1, name: "pratique subscriber example",
});
const js = jetstream(nc, { domain: names.state.domain });
const seen = new Map<string, number>(); // last revision of each finding
const print = (what: string, value: unknown) => console.log(JSON.stringify({ [what]: value }));

// rewind has the snapshot come from its beginning.
async function rewind() {
  const { domain, stream, consumer } = names.state;
  const answer = await nc.request(`$JS.${domain}.API.CONSUMER.RESET.${stream}.${consumer}`, JSON.stringify({ seq: 1 }));
  const { error } = answer.json<{ error?: { description: string } }>();
  if (error) throw new Error(`rewind: ${error.description}`);
}

// snapshot reads what STATE has at the moment: after the first time, the assets that changed since.
async function snapshot(consumer: Consumer) {
  const info = await consumer.info();
  let left = info.num_pending + info.num_ack_pending;
  while (left > 0) {
    let n = 0;
    for await (const m of await consumer.fetch({ max_messages: Math.min(left, 4), expires: 1000 })) {
      n++;
      const body = m.headers?.get("Content-Encoding") === "zstd" ? decompress(m.data) : m.data;
      const state = State.toObject(State.decode(body), plain);
      print("state", state);
      for (const f of state.open ?? []) seen.set(f.id, Math.max(seen.get(f.id) ?? 0, f.revision));
      for (const [id, revision] of Object.entries(state.resolved ?? {})) seen.set(id, Math.max(seen.get(id) ?? 0, revision as number));
      await m.ackAck(); // only now: it was handled
    }
    if (n === 0) break;
    left -= n;
  }
}

// tell prints a delta, unless it was seen. False: some before it are missing, which is accepted if it must be.
function tell(m: JsMsg, accept = false): boolean {
  const delta = Delta.toObject(Delta.decode(m.data), plain);
  const { id, revision } = delta.finding;
  const last = seen.get(id) ?? 0;
  if (revision <= last) return true;
  if (delta.transition !== "TRANSITION_OPENED" && revision !== last + 1 && !filtered && !accept) return false;
  print("delta", delta);
  seen.set(id, revision);
  return true;
}

await rewind();
const state = await js.consumers.get(names.state.stream, names.state.consumer);
const findings = await js.consumers.get(names.findings.stream, names.findings.consumer);
// Who subscribed to some severities misses revisions of others, and that is as it should be.
const filtered = ((await findings.info()).config.metadata?.["pratique-severities"] ?? "") !== "";
await snapshot(state);
for await (const m of await findings.consume({ max_messages: 64 })) {
  if (!tell(m)) {
    await snapshot(state);
    tell(m, true);
  }
  await m.ackAck();
}
