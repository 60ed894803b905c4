// The official OpenAI SDK for Node against a gateway: node sdk.mjs BASE_URL MODEL. Prints one JSON line per check; exits 1 at the first failure.
import OpenAI from "openai";
import assert from "node:assert/strict";

const [baseURL, model] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: "unused", maxRetries: 0 });
const messages = [{ role: "user", content: "Say something about penstocks." }];

const checks = {
  async chat() {
    const r = await client.chat.completions.create({ model, messages, max_tokens: 6 });
    assert.equal(r.object, "chat.completion");
    assert.equal(r.usage.completion_tokens, 6);
  },
  async chatStream() {
    const stream = await client.chat.completions.create({ model, messages, max_tokens: 6, stream: true, stream_options: { include_usage: true } });
    let usage = null, text = "", chunks = 0;
    for await (const chunk of stream) {
      chunks++;
      text += chunk.choices[0]?.delta?.content ?? "";
      usage = chunk.usage ?? usage;
    }
    assert.ok(text.length > 0 && chunks >= 6);
    assert.equal(usage.completion_tokens, 6);
  },
  async completions() {
    const r = await client.completions.create({ model, prompt: "Water flows", max_tokens: 4 });
    assert.equal(r.object, "text_completion");
  },
  async completionsStream() {
    let n = 0;
    for await (const chunk of await client.completions.create({ model, prompt: ["a", "b"], max_tokens: 3, stream: true })) n += chunk.choices.length;
    assert.ok(n >= 6);
  },
  async embeddings() {
    const r = await client.embeddings.create({ model, input: ["a", "b"], encoding_format: "float" });
    assert.equal(r.data.length, 2);
  },
  async responses() {
    const r = await client.responses.create({ model, input: "Hello" });
    assert.equal(r.object, "response");
  },
  async models() {
    const ids = [];
    for await (const m of client.models.list()) ids.push(m.id);
    assert.ok(ids.includes(model), ids.join());
  },
  async unknownModel() {
    await assert.rejects(client.chat.completions.create({ model: "no-such-model", messages }), (e) => e instanceof OpenAI.NotFoundError && e.status === 404);
  },
  async badBody() {
    await assert.rejects(client.chat.completions.create({ model, messages: "not a list" }), (e) => e instanceof OpenAI.BadRequestError && !!e.code);
  },
  async abort() {
    const stream = await client.chat.completions.create({ model, messages, max_tokens: 4000, stream: true });
    for await (const _ of stream) { stream.controller.abort(); break; }
  },
};
for (const [name, check] of Object.entries(checks)) {
  await check();
  console.log(JSON.stringify({ ok: name }));
}
