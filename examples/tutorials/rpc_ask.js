// 6. Ask and wait for the answers: rpc_ask.js [--direct] NUMBER...; --direct asks without a queue for the answers
const amqp = require("amqplib");
const { randomUUID } = require("node:crypto");

const url = process.env.AMQP_URL || "amqp://guest:guest@127.0.0.1:5672";
const isDirect = process.argv[2] === "--direct";
const numbers = process.argv.slice(isDirect ? 3 : 2);

async function main() {
  const connection = await amqp.connect(url);
  const channel = await connection.createChannel();
  const answers = isDirect
    ? "amq.rabbitmq.reply-to" // the broker brings answers straight to this channel
    : (await channel.assertQueue("", { exclusive: true })).queue;
  const waiting = new Map();
  const take = (message) => waiting.get(message.properties.correlationId)?.(message.content.toString());
  await channel.consume(answers, take, { noAck: true }); // before the first question
  const told = numbers.map((number) => {
    const correlationId = randomUUID();
    channel.sendToQueue("steps", Buffer.from(number), { replyTo: answers, correlationId });
    return new Promise((resolve) => waiting.set(correlationId, resolve));
  });
  for (const [at, answer] of (await Promise.all(told)).entries()) {
    console.log(`${numbers[at]} takes ${answer} steps`);
  }
  await connection.close();
}

main();
