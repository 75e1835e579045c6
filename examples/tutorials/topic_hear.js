// 5. Hear what fits patterns, * one word and # any number: topic_hear.js PATTERN..., like garden.# or *.north.*
const amqp = require("amqplib");

const url = process.env.AMQP_URL || "amqp://guest:guest@127.0.0.1:5672";
const patterns = process.argv.slice(2);

async function main() {
  const channel = await (await amqp.connect(url)).createChannel();
  await channel.assertExchange("weather by place", "topic", { durable: false });
  const { queue } = await channel.assertQueue("", { exclusive: true });
  for (const pattern of patterns) await channel.bindQueue(queue, "weather by place", pattern);
  console.log("listening");
  await channel.consume(
    queue,
    (message) => message && console.log(`heard ${message.fields.routingKey}: ${message.content}`),
    { noAck: true },
  );
}

main();
