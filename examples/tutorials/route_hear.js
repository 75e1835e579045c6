// 4. Hear what is told under some words, and nothing else: route_hear.js WORD...
const amqp = require("amqplib");

const url = process.env.AMQP_URL || "amqp://guest:guest@127.0.0.1:5672";
const words = process.argv.slice(2);

async function main() {
  const channel = await (await amqp.connect(url)).createChannel();
  await channel.assertExchange("weather", "direct", { durable: false });
  const { queue } = await channel.assertQueue("", { exclusive: true });
  for (const word of words) await channel.bindQueue(queue, "weather", word); // one binding a word
  console.log("listening");
  await channel.consume(
    queue,
    (message) => message && console.log(`heard ${message.fields.routingKey}: ${message.content}`),
    { noAck: true },
  );
}

main();
