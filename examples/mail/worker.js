// Write mails whose template matches: worker.js PATTERN, like "*.ko" or "invoice.#"
const amqp = require("amqplib");

const url = process.env.AMQP_URL || "amqp://guest:guest@127.0.0.1:5672";
const templates = {
  "welcome.en": "Welcome, {}!",
  "welcome.ko": "{}님, 환영합니다!",
  "invoice.en": "Dear {}, your invoice is attached.",
  "invoice.ko": "{}님, 청구서를 첨부합니다.",
};
const pattern = process.argv[2];

async function main() {
  const channel = await (await amqp.connect(url)).createChannel();
  await channel.assertExchange("mail", "topic", { durable: true });
  await channel.assertQueue(`mail ${pattern}`, { durable: true }); // workers with one pattern share the work
  await channel.bindQueue(`mail ${pattern}`, "mail", pattern);
  await channel.prefetch(1);
  await channel.consume(`mail ${pattern}`, (message) => {
    if (message === null) return; // the queue was deleted
    const template = templates[message.fields.routingKey];
    if (template === undefined) return channel.reject(message, false); // it would fail again
    console.log(template.replace("{}", message.content.toString()));
    channel.ack(message);
  });
  console.log(`waiting for ${pattern}`);
}

main();
