"""The official OpenAI SDKs for Python and for Node work through the gateway unmodified (row C38)."""
import json
import pathlib
import subprocess

import openai
import pytest

from conftest import EXAMPLES, ROOT

SMART = EXAMPLES / "smart-routing"
MODEL = "/models/Qwen3-32B"
MESSAGES = [{"role": "user", "content": "Say something about penstocks."}]


@pytest.fixture
def sb(sandbox):
    return sandbox(SMART / "workload.yaml", SMART / "Prefix_Cache.yaml", SMART / "gateway_networking.yaml", options=("--time-scale", "10"))


@pytest.fixture
def client(sb):
    with openai.OpenAI(base_url=sb.url(8080, "/v1"), api_key="unused", max_retries=0) as c:
        yield c


def test_python_chat(client):
    r = client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=6)
    assert r.object == "chat.completion" and r.usage.completion_tokens == 6


def test_python_chat_stream(client):
    text, usage = "", None
    for chunk in client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=6, stream=True, stream_options={"include_usage": True}):
        usage = chunk.usage or usage
        text += (chunk.choices[0].delta.content or "") if chunk.choices else ""
    assert text and usage.completion_tokens == 6


def test_python_completions(client):
    assert client.completions.create(model=MODEL, prompt="Water flows", max_tokens=4).object == "text_completion"
    assert sum(len(c.choices) for c in client.completions.create(model=MODEL, prompt=["a", "b"], max_tokens=3, stream=True)) >= 6


def test_python_embeddings_responses_models(client):
    assert len(client.embeddings.create(model=MODEL, input=["a", "b"], encoding_format="float").data) == 2
    assert client.responses.create(model=MODEL, input="Hello").object == "response"
    assert MODEL in [m.id for m in client.models.list()]


def test_python_errors(client, sb):
    with pytest.raises(openai.NotFoundError) as e:
        client.chat.completions.create(model="no-such-model", messages=MESSAGES)
    assert e.value.status_code == 404
    with pytest.raises(openai.BadRequestError) as e:
        client.chat.completions.create(model=MODEL, messages="not a list")
    assert e.value.code
    sb.assert_idle()


def test_node(sb):
    if not (ROOT / "tests/node/node_modules/openai").exists():
        pytest.fail("the OpenAI SDK for Node is not installed: run scripts/test")
    run = subprocess.run(["node", "sdk.mjs", sb.url(8080, "/v1"), MODEL], cwd=pathlib.Path(ROOT / "tests/node"), capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stdout + run.stderr
    assert len([json.loads(line) for line in run.stdout.splitlines()]) == 10
    sb.assert_idle()
