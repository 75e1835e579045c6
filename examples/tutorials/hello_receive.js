// 1. Print what comes through a queue: hello_receive.js
const amqp = require("amqplib");

const url = process.env.AMQP_URL || "amqp://guest:guest@127.0.0.1:5672";

async function main() {
  const channel = await (await amqp.connect(url)).createChannel();
  await channel.assertQueue("hello", { durable: false });
  console.log("waiting");
  await channel.consume("hello", (message) => message && console.log(`received ${message.content}`), { noAck: true });
}

main();
