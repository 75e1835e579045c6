// A service of the shop: service.js stock, service.js payment or service.js mail
const amqp = require("amqplib");

const url = process.env.AMQP_URL || "amqp://guest:guest@127.0.0.1:5672";
const service = process.argv[2];

async function main() {
  const channel = await (await amqp.connect(url)).createChannel();
  await channel.assertExchange("orders", "fanout", { durable: true });
  await channel.assertQueue(`orders.${service}`, { durable: true }); // of its own: each service gets each order
  await channel.bindQueue(`orders.${service}`, "orders", "");
  await channel.prefetch(10);
  await channel.consume(`orders.${service}`, (message) => {
    if (message === null) return; // the queue was deleted
    console.log([`${service} handles`, ...JSON.parse(message.content).items].join(" | "));
    channel.ack(message); // only now the order leaves the queue
  });
  console.log(`${service} waits for orders`);
}

main();
