"""Whole programs as targets: `python -m bench.relay.peers nginx --upstream URL`.

Each runs as a child on a free port, with its own settings for streaming and nothing else. `litellm` needs the
interpreter of an environment with `litellm[proxy]` in it: `--python FILE`. `weir` is `weir serve` with as many workers
as `--workers` says, and one engine for all that finds everything safe; with `--share 0.25` each of its processes has a
quarter of a core, and no more (root).
"""

import argparse
import asyncio
import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from urllib.parse import urlsplit

from bench.relay.load import children
from bench.relay.quota import limited
from bench.relay.serving import free_port, until_terminated

START_SECONDS = 90.0
ENGINE = "engine.sock"

# One process, nothing kept back: what a reverse proxy in C costs by itself.
NGINX = """\
worker_processes 1; master_process off; daemon off; pid FOLDER/pid; error_log stderr warn; worker_rlimit_nofile 20000;
events {{ worker_connections 10000; }}
http {{
  access_log off; keepalive_requests 1000000;
  client_body_temp_path {folder}/1; proxy_temp_path {folder}/2; fastcgi_temp_path {folder}/3;
  uwsgi_temp_path {folder}/4; scgi_temp_path {folder}/5;
  upstream up {{ server {upstream}; keepalive 4096; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
      proxy_cache off; proxy_read_timeout 600s;
    }}
  }}
}}
""".replace("FOLDER", "{folder}")

LITELLM = """\
model_list:
  - model_name: "*"
    litellm_params: {{model: "openai/*", api_base: "http://{upstream}/v1", api_key: none}}
litellm_settings: {{num_retries: 0, request_timeout: 600, callbacks: [], telemetry: false}}
general_settings: {{dangerously_permit_weak_or_unset_master_key: true}}  # on loopback, for as long as a measurement
"""


WEIR = """\
server.port = {port}
server.drain_seconds = 0
server.max_lag_seconds = 3600  # what is measured is how late it gets
upstream.base_url = "http://{upstream}"
guard.address = "unix:{engine}"
policy.on_flag = "annotate"
log.file = "/dev/null"
"""


def nginx_program() -> str | None:
    return shutil.which("nginx", path="/usr/sbin:/usr/local/sbin") or shutil.which("nginx")


def command_of(wanted: argparse.Namespace, folder: Path, port: int) -> Sequence[str | Path]:
    """Writes the settings. Exits where the program is missing."""
    name, python = wanted.name, wanted.python
    address = urlsplit(wanted.upstream).netloc
    file = folder / "settings"
    if name == "weir":
        file = folder / "weir.toml"
        file.write_text(WEIR.format(port=port, upstream=address, engine=folder / ENGINE))
        return [sys.executable, "-m", "proxy", "serve", "--config", file, "--workers", str(wanted.workers)]
    if name == "nginx":
        program = nginx_program()
        if program is None:
            sys.exit("nginx is not installed")
        file.write_text(NGINX.format(folder=folder, upstream=address, port=port))
        return [program, "-p", folder, "-c", file]
    if python is None:
        sys.exit("litellm needs --python, the interpreter of an environment that has it")
    file = folder / "settings.yaml"
    file.write_text(LITELLM.format(upstream=address))
    program = str(Path(python).parent / "litellm")
    return [program, "--config", file, "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]


async def serve(wanted: argparse.Namespace) -> None:
    port, name = free_port(), wanted.name
    with tempfile.TemporaryDirectory(prefix="weir-peer-") as folder:
        command = command_of(wanted, Path(folder), port)
        engine = [sys.executable, "-m", "bench.relay.engine", Path(folder, ENGINE)]
        # What they print goes to our log: standard output says the port alone.
        running = [
            await asyncio.create_subprocess_exec(*one, stdout=sys.stderr, stderr=sys.stderr)
            for one in ([engine] if name == "weir" else []) + [command]
        ]
        process = running[-1]
        try:
            async with asyncio.timeout(START_SECONDS):
                while not await serves(port, name):
                    if process.returncode is not None:
                        sys.exit(f"{name} ended with status {process.returncode}")
                    await asyncio.sleep(0.1)
            workers = [process.pid, *children(process.pid)]
            with limited(workers, wanted.share) if wanted.share else nullcontext():
                await until_terminated(port)
        finally:
            for one in reversed(running):
                if one.returncode is None:
                    one.terminate()
                await one.wait()


async def serves(port: int, name: str) -> bool:
    """Whether it listens; Weir also says whether it is ready."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    with closing(writer):
        if name != "weir":
            return True
        writer.write(b"GET /readyz HTTP/1.0\r\nhost: weir\r\n\r\n")
        return b" 200 " in await reader.readline()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=["nginx", "litellm", "weir"])
    parser.add_argument("--upstream", required=True)
    parser.add_argument("--python")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--share", type=float, default=0.0)
    asyncio.run(serve(parser.parse_args()))
