// 1. Put a text into a queue: hello_send.js TEXT
const amqp = require("amqplib");

const url = process.env.AMQP_URL || "amqp://guest:guest@127.0.0.1:5672";
const text = process.argv[2];

async function main() {
  const connection = await amqp.connect(url);
  const channel = await connection.createChannel();
  await channel.assertQueue("hello", { durable: false }); // whoever comes first makes it; to ask again does no harm
  channel.sendToQueue("hello", Buffer.from(text));
  await channel.close(); // what was published before is handled before
  await connection.close();
  console.log(`sent ${text}`);
}

main();
