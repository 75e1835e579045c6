// 2. Do tasks, one at a time; each dot of its text is a tenth of a second: work_do.js
const amqp = require("amqplib");
const { setTimeout: sleep } = require("node:timers/promises");

const url = process.env.AMQP_URL || "amqp://guest:guest@127.0.0.1:5672";

async function main() {
  const channel = await (await amqp.connect(url)).createChannel();
  await channel.assertQueue("work", { durable: true });
  await channel.prefetch(1); // the next task comes after the ack of this one
  await channel.consume("work", async (message) => {
    if (message === null) return; // the queue was deleted
    const task = message.content.toString();
    console.log(`${message.fields.redelivered ? "again" : "begins"} ${task}`);
    await sleep(100 * (task.split(".").length - 1));
    console.log(`done ${task}`);
    channel.ack(message); // only now: if this worker dies before, another gets the task
  });
  console.log("ready");
}

main();
