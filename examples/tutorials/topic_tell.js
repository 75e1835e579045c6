// 5. Tell those whose pattern fits a key of several words: topic_tell.js KEY TEXT, like garden.north.rain
const amqp = require("amqplib");

const url = process.env.AMQP_URL || "amqp://guest:guest@127.0.0.1:5672";
const [key, text] = process.argv.slice(2);

async function main() {
  const connection = await amqp.connect(url);
  const channel = await connection.createChannel();
  await channel.assertExchange("weather by place", "topic", { durable: false });
  channel.publish("weather by place", key, Buffer.from(text));
  await channel.close();
  await connection.close();
  console.log(`told ${key}: ${text}`);
}

main();
