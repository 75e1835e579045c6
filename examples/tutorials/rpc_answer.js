// 6. Answer requests: how many steps a number takes to 1, halved if even, else tripled and one more: rpc_answer.js
const amqp = require("amqplib");

const url = process.env.AMQP_URL || "amqp://guest:guest@127.0.0.1:5672";

function steps(number) {
  let count = 0;
  for (; number !== 1; count += 1) number = number % 2 ? 3 * number + 1 : number / 2;
  return count;
}

async function main() {
  const channel = await (await amqp.connect(url)).createChannel();
  await channel.assertQueue("steps", { durable: false });
  await channel.prefetch(1); // several of these share the requests
  await channel.consume("steps", (message) => {
    if (message === null) return; // the queue was deleted
    const { replyTo, correlationId } = message.properties; // by the id the asker knows its question
    channel.sendToQueue(replyTo, Buffer.from(`${steps(Number(message.content))}`), { correlationId });
    channel.ack(message);
  });
  console.log("answering");
}

main();
