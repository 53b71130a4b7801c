"""Other people's proxies as targets: `python -m bench.relay.peers nginx --upstream URL`.

Each runs as a child on a free port, with its own settings for streaming and nothing else. `litellm` needs the
interpreter of an environment with `litellm[proxy]` in it: `--python FILE`.
"""

import argparse
import asyncio
import shutil
import socket
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from bench.relay.serving import until_terminated

START_SECONDS = 90.0

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


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def nginx_program() -> str | None:
    return shutil.which("nginx", path="/usr/sbin:/usr/local/sbin") or shutil.which("nginx")


def command_of(name: str, folder: Path, upstream: str, port: int, python: str | None) -> Sequence[str | Path]:
    """Writes the settings. Exits where the program is missing."""
    address = urlsplit(upstream).netloc
    file = folder / "settings"
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


async def serve(name: str, upstream: str, python: str | None) -> None:
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="weir-peer-") as folder:
        command = command_of(name, Path(folder), upstream, port, python)
        # What it prints goes to our log: standard output says the port alone.
        process = await asyncio.create_subprocess_exec(*command, stdout=sys.stderr, stderr=sys.stderr)
        try:
            async with asyncio.timeout(START_SECONDS):
                while not await listens(port):
                    if process.returncode is not None:
                        sys.exit(f"{name} ended with status {process.returncode}")
                    await asyncio.sleep(0.1)
            await until_terminated(port)
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()


async def listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=["nginx", "litellm"])
    parser.add_argument("--upstream", required=True)
    parser.add_argument("--python")
    wanted = parser.parse_args()
    asyncio.run(serve(wanted.name, wanted.upstream, wanted.python))
