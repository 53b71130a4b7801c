"""A bare aiohttp proxy: bytes through, nothing read. `python -m bench.relay.passthrough --upstream URL`.

What an aiohttp server behind which an aiohttp client calls costs by itself, and so the measure for Weir.
"""

import argparse
from collections.abc import AsyncIterator

import uvloop
from aiohttp import ClientSession, ClientTimeout, TCPConnector, web

from bench.relay.serving import until_terminated

UPSTREAM = web.AppKey("upstream", str)
SESSION = web.AppKey("session", ClientSession)


async def relay(request: web.Request) -> web.StreamResponse:
    headers = {"content-type": "application/json"}
    url = request.app[UPSTREAM] + request.path_qs
    async with request.app[SESSION].post(url, data=await request.read(), headers=headers) as answer:
        response = web.StreamResponse(status=answer.status, headers={"content-type": answer.content_type})
        await response.prepare(request)
        async for data in answer.content.iter_any():
            await response.write(data)
        return response


async def session(app: web.Application) -> AsyncIterator[None]:
    async with ClientSession(connector=TCPConnector(limit=0), timeout=ClientTimeout(total=None)) as opened:
        app[SESSION] = opened
        yield


async def serve(upstream: str) -> None:
    app = web.Application()
    app[UPSTREAM] = upstream
    app.cleanup_ctx.append(session)
    app.router.add_post("/{path:.*}", relay)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        await until_terminated(runner.addresses[0][1])
    finally:
        await runner.cleanup()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--upstream", required=True)
    uvloop.run(serve(parser.parse_args().upstream))
