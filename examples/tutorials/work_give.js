// 2. Give tasks to whichever worker is free: work_give.js TASK...
const amqp = require("amqplib");

const url = process.env.AMQP_URL || "amqp://guest:guest@127.0.0.1:5672";
const tasks = process.argv.slice(2);

async function main() {
  const connection = await amqp.connect(url);
  const channel = await connection.createChannel();
  await channel.assertQueue("work", { durable: true });
  for (const task of tasks) channel.sendToQueue("work", Buffer.from(task), { persistent: true });
  await channel.close();
  await connection.close();
  console.log(`gave ${tasks.length}`);
}

main();
