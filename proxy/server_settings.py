"""What clients connect to: the section `[server]`."""

from typing import Annotated

from pydantic import BeforeValidator, Field

from proxy.setting_types import MIB, Bytes, Count, Line, Seconds, Section, not_bool, words


class ServerSettings(Section):
    """What clients connect to, and how much one of them may ask of us."""

    host: Line = "127.0.0.1"
    """Address to listen on."""
    port: Annotated[Count, Field(ge=0, le=65535)] = 8080
    """Port to listen on; 0 takes a free one."""
    allowed_hosts: Annotated[tuple[Line, ...], BeforeValidator(words), Field(max_length=1000)] = ()
    """Names by which clients may ask, such as "*.example.com"; unset: any, or without keys on loopback its own."""
    max_body_bytes: Bytes = 8 * MIB
    """Largest request body; more is answered with 413."""
    max_messages: Annotated[Count, Field(ge=1, le=100_000)] = 4096
    """Most messages in one conversation."""
    max_choices: Annotated[Count, Field(ge=1, le=128)] = 16
    """Largest `n`, the answers asked for at once."""
    max_json_depth: Annotated[Count, Field(ge=8, le=256)] = 64
    """Deepest nesting of a request body."""
    request_seconds: Seconds = 30.0
    """Deadline by which a whole request body has arrived."""
    send_seconds: Seconds = 60.0
    """Longest wait for a client that does not read."""
    heartbeat_seconds: Annotated[Seconds, Field(le=50)] = 15.0
    """Keep-alive interval while text is held; some clients give up after 60 s of silence."""
    reuse_port: bool = False
    """Share the port with other servers of the same user (SO_REUSEPORT): a new one takes it over once it can judge."""
    workers: Annotated[Count, Field(ge=1, le=256)] = 1
    """Processes that serve, with one guard's engine and the limits of keys among them; other limits are of each."""
    pre_stop_seconds: Annotated[float, BeforeValidator(not_bool), Field(ge=0, le=600, allow_inf_nan=False)] = 0.0
    """After a stop signal: how long new requests are still taken while /readyz says that others should be asked."""
    drain_seconds: Annotated[float, BeforeValidator(not_bool), Field(ge=0, le=3600, allow_inf_nan=False)] = 30.0
    """How long running answers may finish after a stop signal."""
    max_connections: Annotated[Count, Field(ge=1, le=1_000_000)] = 10_000
    """Most connections of clients at once, within what the system allows of open files; more are closed at once."""
    max_connections_per_address: Annotated[Count, Field(ge=1, le=1_000_000)] | None = None
    """Of them from one address, for IPv6 one /64; unset: any, for behind a load balancer all have its address."""
    max_streams: Annotated[Count, Field(ge=1, le=1_000_000)] = 2000
    """Most moderated requests at once; more are answered with 503."""
    max_lag_seconds: Seconds = 0.05
    """How late the event loop may be, for half a second on end, before new requests are answered with 503."""
