"""Every limit that a request or an answer can meet, by the name that metrics count it under. docs/limits.md tells more.

A setting's limit has the setting's name. The others are fixed, and named after the constant beside its reason.
"""

from enum import StrEnum


class Limit(StrEnum):
    # A client's connection, and what it sends.
    CONNECTIONS = "server.max_connections"
    ADDRESS = "server.max_connections_per_address"
    HEAD = "max_line_bytes"
    HEADERS = "max_headers"
    HEAD_SECONDS = "idle_connection_seconds"
    BODY = "server.max_body_bytes"
    BODY_SECONDS = "server.request_seconds"
    DEPTH = "server.max_json_depth"
    VALUES = "max_values"
    BRACKETS = "max_brackets"
    KEY_CHARACTERS = "max_key_chars"
    MESSAGES = "server.max_messages"
    CHOICES = "server.max_choices"
    PARTS = "max_parts"
    TOOLS = "max_tools"
    INPUTS = "max_inputs"
    UPLOAD = "passthrough.max_upload_bytes"
    UPLOAD_IDLE = "passthrough.idle_seconds"
    # How much at once.
    STREAMS = "server.max_streams"
    LAG = "server.max_lag_seconds"
    KEY_STREAMS = "auth.keys.max_streams"
    KEY_REQUESTS = "auth.keys.requests_per_minute"
    KEY_TOKENS = "auth.keys.tokens_per_minute"
    ASIDE = "aside_seconds"
    # The upstream.
    CONNECT = "upstream.connect_seconds"
    POOL = "upstream.max_connections"
    FIRST_BYTE = "upstream.first_byte_seconds"
    IDLE = "upstream.idle_seconds"
    TOTAL = "upstream.total_seconds"
    EVENT = "upstream.max_event_bytes"
    ANSWER_BODY = "upstream.max_body_bytes"
    PASSED_ANSWER = "passthrough.max_answer_bytes"
    HELD = "max_held_characters"
    CHANNELS = "max_channels"
    # The guard.
    VERDICT = "guard.verdict_seconds"
    ADMISSION = "guard.admission_seconds"
    WINDOW = "guard.window"
    # The end.
    SEND = "server.send_seconds"
    DRAIN = "server.drain_seconds"
