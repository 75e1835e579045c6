// 3. Tell everyone who listens now: news_tell.js TEXT
const amqp = require("amqplib");

const url = process.env.AMQP_URL || "amqp://guest:guest@127.0.0.1:5672";
const text = process.argv[2];

async function main() {
  const connection = await amqp.connect(url);
  const channel = await connection.createChannel();
  await channel.assertExchange("news", "fanout", { durable: false });
  channel.publish("news", "", Buffer.from(text));
  await channel.close();
  await connection.close();
  console.log(`told ${text}`);
}

main();
