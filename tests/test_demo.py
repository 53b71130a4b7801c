"""The main job as a new user sees it: `weir demo` runs by itself, and its three conversations come out right."""

import asyncio
import sys
from typing import Any

import pytest
from openai import AsyncOpenAI

from proxy.demo import CONVERSATIONS, STAY_ANSWER, demo_server


async def test_the_three_conversations_come_out_right_by_the_guards_own_judgement() -> None:
    demo = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "proxy", "demo", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    printed, _ = await asyncio.wait_for(demo.communicate(), 120)
    text = " ".join(printed.decode().split())
    assert demo.returncode == 0, text
    safe, turned, prompt = CONVERSATIONS
    assert safe.answer in text
    assert turned.answer not in text
    assert turned.answer[:100] in text
    assert "the prompt is blocked: Unsafe" in text
    assert prompt.answer not in text
    assert "cut off 0 time" not in text
    assert "Traceback" not in text


async def test_the_scripted_model_serves_alone_until_a_signal() -> None:
    llm = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "proxy", "demo", "--scripted-llm", "0", stdout=asyncio.subprocess.PIPE
    )
    assert llm.stdout is not None
    async with asyncio.timeout(120):
        first = (await llm.stdout.readline()).decode()
        url = first.removeprefix("A scripted LLM: ").strip()
        async with AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
            ask: Any = {"model": "scripted", "messages": [{"role": "user", "content": "say: good morning"}]}
            answer = await client.chat.completions.create(**ask)
            assert answer.choices[0].message.content == "good morning"
        port = url.split(":")[2].removesuffix("/v1")
        second = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "proxy", "demo", "--scripted-llm", port, stderr=asyncio.subprocess.PIPE
        )
        _, said = await second.communicate()
        assert (second.returncode, said.decode()) == (1, "Cannot listen there: address already in use.\n")
        llm.terminate()
        assert await llm.wait() == 0


@pytest.mark.parametrize("is_streamed", [True, False])
async def test_what_one_says_to_the_scripted_model_comes_back_through_the_guard(is_streamed: bool) -> None:
    async with demo_server() as (url, _), AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
        for question, answer in {"say: good morning": "good morning", "hello": STAY_ANSWER}.items():
            ask: Any = {"model": "scripted", "messages": [{"role": "user", "content": question}]}
            if is_streamed:
                stream = await client.chat.completions.create(**ask, stream=True)
                chunks = [chunk async for chunk in stream]
                text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
            else:
                text = (await client.chat.completions.create(**ask)).choices[0].message.content
            assert text == answer
        assert [model.id async for model in client.models.list()] == ["scripted"]
