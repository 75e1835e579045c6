// 3. Hear all that is told while this runs: news_hear.js
const amqp = require("amqplib");

const url = process.env.AMQP_URL || "amqp://guest:guest@127.0.0.1:5672";

async function main() {
  const channel = await (await amqp.connect(url)).createChannel();
  await channel.assertExchange("news", "fanout", { durable: false });
  const { queue } = await channel.assertQueue("", { exclusive: true }); // a copy of everything for this program alone
  await channel.bindQueue(queue, "news", "");
  console.log("listening");
  await channel.consume(queue, (message) => message && console.log(`heard ${message.content}`), { noAck: true });
}

main();
