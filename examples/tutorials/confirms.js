// 7. Know that messages are safe: confirms.js COUNT, three ways to wait for the broker's word, and what came back
const amqp = require("amqplib");

const url = process.env.AMQP_URL || "amqp://guest:guest@127.0.0.1:5672";
const queue = "confirmed";
const batch = 10;
const count = Number(process.argv[2]);

const send = (channel, number, confirmed) =>
  channel.sendToQueue(queue, Buffer.from(`${number}`), { persistent: true }, confirmed);

// Slowest: every message waits for its own confirm, and an exception tells of one that was refused.
async function oneByOne(channel) {
  for (let number = 0; number < count; number += 1) {
    send(channel, number);
    await channel.waitForConfirms();
  }
  return count;
}

async function inBatches(channel) {
  for (let number = 0; number < count; number += 1) {
    send(channel, number);
    if ((number + 1) % batch === 0) await channel.waitForConfirms();
  }
  await channel.waitForConfirms();
  return count;
}

// Fastest: a callback a message.
function asTheyCome(channel) {
  return new Promise((resolve, reject) => {
    let safe = 0;
    const confirmed = (error) => (error ? reject(error) : ++safe === count && resolve(safe));
    for (let number = 0; number < count; number += 1) send(channel, number, confirmed);
  });
}

// A confirm says that the broker has done its part, even if no queue wanted the message: `mandatory` tells.
async function returned(channel) {
  let text = "nothing";
  channel.on("return", (message) => (text = message.fields.replyText));
  channel.sendToQueue("no such queue", Buffer.from("lost?"), { mandatory: true });
  await channel.waitForConfirms();
  return text;
}

async function main() {
  const connection = await amqp.connect(url);
  const channel = await connection.createConfirmChannel();
  await channel.assertQueue(queue, { durable: true });
  await channel.purgeQueue(queue);
  console.log(`one by one: ${await oneByOne(channel)} confirmed`);
  console.log(`in batches: ${await inBatches(channel)} confirmed`);
  console.log(`as they come: ${await asTheyCome(channel)} confirmed`);
  console.log(`the queue holds ${(await channel.checkQueue(queue)).messageCount}`);
  console.log(`came back: ${await returned(channel)}`);
  await connection.close();
}

main();
