// amqplib for integration/test_traffic.py: one command per line on standard input (JSON), one answer per line.
//   node traffic.mjs URL
// {op: "declare", exchange?, type?, queues: [{name, keys: []}]}   {op: "publish", exchange, key, body}
// {op: "take", queue, count}   {op: "end"}
import amqp from "amqplib";
import { createInterface } from "node:readline";

const connection = await amqp.connect(process.argv[2]);
const channel = await connection.createConfirmChannel();

async function declare({ exchange, type, queues }) {
  if (exchange) await channel.assertExchange(exchange, type, { durable: true });
  for (const { name, keys } of queues) {
    await channel.assertQueue(name, { durable: true });
    for (const key of keys) await channel.bindQueue(name, exchange, key);
  }
  return true;
}

async function publish({ exchange, key, body }) {
  channel.publish(exchange, key, Buffer.from(body, "base64"), { persistent: true, mandatory: true, contentType: "text/plain" });
  await channel.waitForConfirms();
  return true;
}

function take({ queue, count }) {
  return new Promise((resolve, reject) => {
    const bodies = [];
    if (count === 0) return resolve(bodies);
    const timer = setTimeout(() => reject(new Error(`${bodies.length} of ${count} from ${queue}`)), 15000);
    const tag = `take-${queue}`;
    channel.consume(
      queue,
      (message) => {
        if (message === null || bodies.length === count) return;
        bodies.push(message.content.toString("base64"));
        channel.ack(message);
        if (bodies.length === count) {
          clearTimeout(timer);
          channel.cancel(tag).then(() => resolve(bodies), reject);
        }
      },
      { consumerTag: tag },
    ).catch(reject);
  });
}

const operations = { declare, publish, take };

for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  if (command.op === "end") break;
  try {
    console.log(JSON.stringify({ ok: await operations[command.op](command) }));
  } catch (error) {
    console.log(JSON.stringify({ error: String(error) }));
  }
}
await connection.close();
