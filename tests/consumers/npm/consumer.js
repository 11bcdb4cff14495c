// A consumer as its users write it: `node consumer.js SERVERS RECORDS TOPIC…` prints a JSON line a record, and ends after
// so many. kafkajs reads committed records only, by default. Events pass CloudEvents' own SDK and its strict validation.
const { decode } = require("@msgpack/msgpack");
const { Kafka: CloudEvents } = require("cloudevents");
const { randomUUID } = require("crypto");
const { Kafka, logLevel } = require("kafkajs");

const [servers, records, ...topics] = process.argv.slice(2);

const decoders = {
  "application/json": (bytes) => JSON.parse(bytes),
  "application/msgpack": (bytes) => decode(bytes),
};

function eventOf(key, headers, value) {
  const event = CloudEvents.toEvent({ key, headers, value });
  event.validate();
  return Buffer.isBuffer(event.data) ? decode(event.data) : event.data;
}

function asLine(topic, partition, message) {
  const key = message.key.toString();
  const headers = Object.fromEntries(Object.entries(message.headers).map(([name, bytes]) => [name, bytes.toString()]));
  const value = headers.ce_id
    ? eventOf(key, headers, message.value)
    : (decoders[headers["content-type"]]?.(message.value) ?? null);
  return { topic, partition, offset: Number(message.offset), key, headers, value };
}

function readAll(consumer) {
  let left = Number(records);
  return new Promise((resolve, reject) => {
    consumer.on(consumer.events.CRASH, ({ payload }) => reject(payload.error));
    const eachBatch = async ({ batch }) => {
      for (const message of batch.messages) console.log(JSON.stringify(asLine(batch.topic, batch.partition, message)));
      left -= batch.messages.length;
      if (left <= 0) resolve();
    };
    consumer.run({ eachBatch }).catch(reject);
  });
}

async function main() {
  const kafka = new Kafka({ brokers: servers.split(","), logLevel: logLevel.ERROR });
  const consumer = kafka.consumer({ groupId: randomUUID() });
  await consumer.connect();
  await consumer.subscribe({ topics, fromBeginning: true });
  await readAll(consumer);
  await consumer.disconnect();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
